"""What a sandbox that was killed left behind, and how the next one cleans it up.

Owns the notes under the cache folder: while a sandbox runs, its note names its folder and its
processes and is locked. A note that is not locked belongs to a sandbox that was killed; one of
another machine or container is left to the sandboxes there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shutil
import signal
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypedDict

from worker.sandbox.processes import gone, process_table, process_tree, signal_processes, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.sandbox.service import Say


class Note(TypedDict):
    """What a sandbox writes down: its folder, and the id and start of each of its processes.

    `system` is where these ids mean anything. A home folder can be shared by machines and
    containers that do not see each other's processes.
    """

    system: str
    directory: str
    processes: list[tuple[int, str]]


def this_system() -> str:
    """Return what tells this machine, since its start, and this container from all others."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):  # not on Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


class Record:
    """The note of one running sandbox."""

    def __init__(self, file: IO[str], directory: Path) -> None:
        self._file = file
        self._note = Note(system=this_system(), directory=str(directory), processes=[])
        self._lock = threading.Lock()

    @classmethod
    @contextlib.contextmanager
    def open(cls, cache: Path, directory: Path) -> Iterator[Record]:
        """Keep a note as long as the sandbox runs."""
        folder = cache / "running"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{directory.name}.json"
        draft = path.with_suffix(".draft")  # nobody looks at it until it is locked and complete
        with draft.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            record = cls(file, directory)
            record._write()
            draft.rename(path)
            try:
                yield record
            finally:
                path.unlink(missing_ok=True)

    def add(self, pid: int) -> None:
        """Note a process that the sandbox has started."""
        status = process_table().get(pid)
        with self._lock:
            if status is not None:
                self._note["processes"].append((pid, status.started))
            self._write()

    def _write(self) -> None:
        # It only grows, so writing over it in one piece never leaves half a note.
        self._file.seek(0)
        self._file.write(json.dumps(self._note))
        self._file.flush()


def clean_up(cache: Path, say: Say) -> None:
    """End and remove what killed sandboxes left behind."""
    for path in sorted((cache / "running").glob("*.json")):
        with contextlib.suppress(OSError), path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its sandbox runs
            with contextlib.suppress(ValueError, KeyError):
                note: Note = json.load(file)
                if note["system"] == this_system():
                    _remove(note, say)
                    path.unlink(missing_ok=True)


def _remove(note: Note, say: Say) -> None:
    directory = Path(note["directory"])
    table = process_table()
    alive = [
        pid for pid, started in note["processes"] if pid in table and table[pid].started == started
    ]
    tree = [member for pid in alive for member in process_tree(pid)]
    signal_processes(tree, signal.SIGKILL)
    wait_until(lambda: gone(tree), seconds=10.0)
    if directory.exists() and directory.stat().st_uid == os.geteuid():
        shutil.rmtree(directory, ignore_errors=True)
        say(f"removed what a killed sandbox had left in {directory}")
