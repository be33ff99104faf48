"""A backlog of large messages, as large as the disk allows, and the memory of a process that works on it."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from support.broker import Client
from support.events import logged

MIB = 1024 * 1024
_PER_PORTION = 32 * MIB
"""Bytes that are on their way to the broker at once."""
_KEEP_FREE = 20 * 1024 * MIB


def require_disk(bytes_waiting: int) -> None:
    """Skip where the broker could not hold this much: it writes a message to its log and then to a segment."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < 2 * bytes_waiting + _KEEP_FREE:
        pytest.skip(f"only {free // MIB} MiB of disk are free")


async def publish_large(agent: Client, count: int, output: Any) -> int:
    """Publish log entries with this output, in portions; returns the bytes of one, once the broker has all of them."""
    size = len(logged(output_full=output).to_json())
    portion = max(1, _PER_PORTION // size)
    for start in range(0, count, portion):
        new = [logged(output_full=output) for _ in range(min(portion, count - start))]
        await asyncio.gather(*(agent.publish(event) for event in new))
    return size


def peak_memory(pid: int) -> int:
    """The largest resident set that a process has had, in bytes (the kernel's own record of it)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no memory any more")
