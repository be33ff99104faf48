"""CPU seconds by process, from /proc: what holds on a loaded machine, where rates do not.

A process counts with all its descendants, and with those that have ended (the kernel adds their time to the parent that
waited for them), so that PostgreSQL's backends and Erlang's helpers are in.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from worker.sandbox.processes import process_tree

_TICKS = os.sysconf("SC_CLK_TCK")
_MIB = 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds of CPU by name (worker, broker, database), and the machine's as a whole."""

    seconds: Mapping[str, float]
    machine: float

    def since(self, before: "Usage") -> dict[str, float]:
        """What was used since an earlier look."""
        return {name: used - before.seconds.get(name, 0.0) for name, used in self.seconds.items()}


def look(pids: Mapping[str, int | None]) -> Usage:
    """The CPU seconds so far of these process trees; a name without a pid is left out."""
    seconds = {name: tree_seconds(pid) for name, pid in pids.items() if pid is not None}
    return Usage(seconds, machine_seconds())


def tree_seconds(pid: int) -> float:
    """User and system time of a process, its descendants, and those of them that have ended."""
    return sum(map(_seconds, process_tree(pid)))


def _seconds(pid: int) -> float:
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        fields = text[text.rindex(")") + 2 :].split()
        return sum(map(int, fields[11:15])) / _TICKS  # utime, stime, cutime, cstime
    return 0.0


def machine_seconds() -> float:
    """Busy seconds of all cores since boot."""
    fields = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))
    return (sum(fields) - fields[3] - fields[4]) / _TICKS  # without idle and waiting for disks


def peak_memory(pid: int) -> float:
    """MiB of memory that the processes of a tree held at most, added up."""
    return sum(map(_peak, process_tree(pid)))


def _peak(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / _MIB
    return 0.0
