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
        self._limit = asyncio.timeout(None)
        self._stopping = False
        self._code = 0

    async def run(self, count: int) -> int:
        """The exit code, once every process has ended."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        try:
            async with self._limit:
                await self._start_and_wait(count)
        except TimeoutError:
            await self._kill()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
        return self._code

    async def _start_and_wait(self, count: int) -> None:
        for index in range(count):
            if not self._stopping:
                self._children.append(await self._start(index))
        running = {child.ended: child for child in self._children}
        while running:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                self._take_note(running.pop(ended), ended.result())

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
        if not self._stopping:
            now = asyncio.get_running_loop().time()
            self._limit.reschedule(now + self._settings.grace + _AFTER_GRACE)
        self._stopping = True
        for child in self._children:
            child.signal(signal.SIGTERM)

    def _take_note(self, child: _Child, code: int) -> None:
        """One process has ended: as it should, or so that all have to."""
        # A process that was told to stop before it could listen for it ends by the signal.
        expected = code in (0, -signal.SIGTERM) if self._stopping else self._drain and code == 0
        say = log.info if expected else log.error
        say("process ended", process=child.name, pid=child.process.pid, code=code)
        if not expected:
            self._code = self._code or (code if code > 0 else 1)
            if not self._stopping:
                self._stop()

    async def _kill(self) -> None:
        """End what did not end within the grace period."""
        self._code = self._code or 1
        for child in self._children:
            if child.process.returncode is None:
                log.error("process killed", process=child.name, pid=child.process.pid)
                child.signal(signal.SIGKILL)
                await child.ended


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
