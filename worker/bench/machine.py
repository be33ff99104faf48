"""CPU time, from /proc: of a worker process, and of the machine as a whole. None where the system does not tell."""

import contextlib
import os
from pathlib import Path

_USER, _SYSTEM = 11, 12
"""Places in /proc/PID/stat behind the name, which may hold anything."""
_IDLE, _WAITING = 3, 4


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_seconds(pid: int) -> float | None:
    """User and system time of a process, all its threads together."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        fields = text[text.rindex(")") + 2 :].split()
        return (int(fields[_USER]) + int(fields[_SYSTEM])) / os.sysconf("SC_CLK_TCK")
    return None


def busy_seconds() -> tuple[float, float] | None:
    """Seconds that all cores were busy with anything since boot, and all seconds that they had."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))
        ticks = os.sysconf("SC_CLK_TCK")
        idle = fields[_IDLE] + fields[_WAITING]
        return (sum(fields) - idle) / ticks, sum(fields) / ticks
    return None


def share_busy(
    before: tuple[float, float] | None, after: tuple[float, float] | None
) -> float | None:
    """The share of the machine that was busy between two looks."""
    if before is None or after is None or after[1] <= before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1])
