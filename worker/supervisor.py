"""Several worker processes on one host, started and ended together.

Promises: SIGTERM and SIGINT reach every process; one that ends unasked ends all, and the exit code is not 0; none
outlives its supervisor, however that ended.
"""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from worker.errors import Misconfigured
from worker.settings import Settings

log = structlog.get_logger()

_LARGEST_PORT = 65535
_AFTER_GRACE = 5.0
"""Seconds beyond the grace period after which a process that was told to stop is killed."""


@dataclass
class _Child:
    """One worker process."""

    name: str
    process: asyncio.subprocess.Process
    ended: asyncio.Task[int] = field(init=False)

    def __post_init__(self) -> None:
        self.ended = asyncio.create_task(self.process.wait(), name=self.name)

    def signal(self, number: int) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)


class _Supervisor:
    """Starts the processes, hands signals on, and waits for all of them."""

    def __init__(self, settings: Settings, *, drain: bool) -> None:
        self._settings = settings
        self._drain = drain
        self._children: list[_Child] = []
        self._stopping = False
        self._code = 0

    async def run(self, count: int) -> int:
        """The exit code, once every process has ended."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        try:
            for index in range(count):
                self._children.append(await self._start(index))
            await self._wait()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            await self._end_all()
        return self._code

    async def _start(self, index: int) -> _Child:
        arguments = ["run", "--supervised", *(["--drain"] if self._drain else [])]
        # A session of its own: Ctrl-C in the terminal is the supervisor's to hand on, or it would count twice.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "worker",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            env={**os.environ, **child_settings(self._settings, index)},
            start_new_session=True,
        )
        name = f"{self._settings.name}-{index}"
        log.info("process started", process=name, pid=process.pid)
        return _Child(name, process)

    def _stop(self) -> None:
        """Tell every process to stop; told twice, they end at once."""
        self._stopping = True
        for child in self._children:
            child.signal(signal.SIGTERM)

    async def _wait(self) -> None:
        running = list(self._children)
        while running:
            limit = self._settings.grace + _AFTER_GRACE if self._stopping else 1.0
            done, _ = await asyncio.wait(
                [child.ended for child in running], timeout=limit, return_when=asyncio.FIRST_COMPLETED
            )
            if not done and self._stopping:
                return  # what is left is killed
            for child in [child for child in running if child.ended in done]:
                running.remove(child)
                self._take_note(child, child.ended.result())

    def _take_note(self, child: _Child, code: int) -> None:
        """One process has ended: as it should, or so that all have to."""
        expected = code == 0 and (self._stopping or self._drain)
        say = log.info if expected else log.error
        say("process ended", process=child.name, pid=child.process.pid, code=code)
        if expected:
            return
        self._code = self._code or (code if code > 0 else 1)
        if not self._stopping:
            self._stop()

    async def _end_all(self) -> None:
        """Kill what still runs."""
        for child in self._children:
            if child.process.returncode is None:
                log.error("process killed", process=child.name, pid=child.process.pid)
                child.signal(signal.SIGKILL)
                await child.ended
                self._code = self._code or 1


async def supervise(settings: Settings, count: int, *, drain: bool) -> int:
    """Run this many worker processes; 0 when all ended as they should. Raises Misconfigured where ports run out."""
    if settings.http_port and settings.http_port + count - 1 > _LARGEST_PORT:
        raise Misconfigured(
            f"WORKER_HTTP_PORT {settings.http_port} leaves no ports for {count} processes; choose a lower one"
        )
    return await _Supervisor(settings, drain=drain).run(count)


def child_settings(settings: Settings, index: int) -> Mapping[str, str]:
    """What one process has in its environment beside the supervisor's own."""
    port = settings.http_port + index if settings.http_port else 0
    return {
        "WORKER_NAME": f"{settings.name}-{index}",
        "WORKER_HTTP_PORT": str(port),
        "WORKER_FAMILIES": settings.families,
    }


def follow_parent() -> None:
    """Stop, as by SIGTERM, when standard input ends: the supervisor holds the other end and is gone."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="follow-parent", daemon=True).start()
