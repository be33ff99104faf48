"""Processes and ports of this machine, with nothing but the standard library.

Owns the one place where a program is run to its end (`run`), the process table, and signals to
a process together with all its descendants.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from worker.sandbox.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

POLL_SECONDS = 0.02
# Below the range from which Linux and macOS take the ports of outgoing connections, so that
# nothing takes the port of a server while it restarts.
PORTS = range(12_000, 32_000)


_handed_out: set[int] = set()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on, and never the same one twice."""
    for port in random.sample(PORTS, 200):
        if port in _handed_out:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _handed_out.add(port)
            return port
    raise SandboxError(f"No port of 127.0.0.1 between {PORTS.start} and {PORTS.stop} is free.")


@dataclass(frozen=True, slots=True)
class Identity:
    """The user and group that a process runs as."""

    uid: int
    gid: int


def run(
    *command: str | Path,
    environment: Mapping[str, str],
    seconds: float,
    identity: Identity | None = None,
    folder: Path = Path("/"),
    text: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever its status, with what it prints.

    A program that cannot be run or takes longer is a `SandboxError`.
    """
    try:
        return subprocess.run(  # noqa: S603 (running programs is what the sandbox is for)
            [str(part) for part in command],
            env=dict(environment),
            cwd=folder,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            user=None if identity is None else identity.uid,
            group=None if identity is None else identity.gid,
            extra_groups=None if identity is None else [],
        )
    except subprocess.TimeoutExpired as error:
        raise SandboxError(f"{command[0]} did not end within {seconds:.0f} s.") from error
    except OSError as error:
        raise SandboxError(f"{command[0]} cannot be run: {error}.") from error


def wait_until(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Poll until the condition holds; False when it did not within the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One line of the process table. `started` tells a process from a later one with its pid."""

    pid: int
    parent: int
    zombie: bool
    started: str


def process_table() -> dict[int, ProcessStatus]:
    """Return every process of the machine by its pid."""
    if Path("/proc/self/stat").exists():
        return {status.pid: status for status in _proc_table()}
    listing = run(
        "ps", "-A", "-o", "pid=,ppid=,state=,lstart=", environment=os.environ, seconds=10.0
    ).stdout
    rows = (line.split(maxsplit=3) for line in listing.splitlines())
    return {
        int(pid): ProcessStatus(int(pid), int(parent), state.startswith("Z"), started.strip())
        for pid, parent, state, started in rows
    }


def _proc_table() -> Iterable[ProcessStatus]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it ended while we looked
                text = Path(entry.path, "stat").read_text(errors="replace")
                # The command is in brackets and may hold blanks and brackets itself.
                fields = text[text.rindex(")") + 2 :].split()
                yield ProcessStatus(int(entry.name), int(fields[1]), fields[0] == "Z", fields[19])


def process_tree(pid: int) -> list[int]:
    """Return the process and all its descendants that run, parents first."""
    table = process_table()
    children: dict[int, list[int]] = {}
    for status in table.values():
        if not status.zombie:
            children.setdefault(status.parent, []).append(status.pid)
    tree = [pid]
    for member in tree:  # grows while it is walked
        tree.extend(children.get(member, ()))
    return tree


def signal_processes(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each process that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_tree(pid: int) -> list[int]:
    """SIGKILL a process with all its descendants, and return which they were.

    The tree is stopped first: a process that cannot run cannot fork out of sight.
    """
    signal_processes([pid], signal.SIGSTOP)
    tree = process_tree(pid)
    signal_processes(tree, signal.SIGKILL)
    return tree


def gone(pids: Iterable[int]) -> bool:
    """Whether none of the processes runs any more."""
    table = process_table()
    return all(pid not in table or table[pid].zombie for pid in pids)
