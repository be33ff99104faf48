"""Several worker processes on one host: started together, ended together, and each kept running in between.

Promises: a process that dies is started again, after a growing pause; what a person has to mend (exit code 2) ends
all with that code; SIGTERM and SIGINT reach every process, also one that is about to start; none outlives its
supervisor, however that ended.
"""

import asyncio
import contextlib
import os
import random
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from worker.errors import Misconfigured
from worker.settings import Settings

log = structlog.get_logger()

_LARGEST_PORT = 65535
_AFTER_GRACE = 5.0
"""Seconds beyond the grace period after which a process that was told to stop is killed."""
_FIRST_PAUSE = 0.5
_MISCONFIGURED, _UNAVAILABLE = 2, 3
"""Exit codes of a process (`worker/cli`): a person has to act; a service could not be reached at its start."""


@dataclass
class _Process:
    """One of the processes, over all its lives."""

    index: int
    name: str
    life: asyncio.subprocess.Process | None = None
    restarts: int = 0
    deaths_in_a_row: int = 0
    """Deaths since it last ran for long enough to count as healthy."""

    @property
    def known(self) -> dict[str, object]:
        """What a log line says of it."""
        return {"process": self.name, "pid": self.life.pid if self.life is not None else None}

    def signal(self, number: int) -> None:
        if self.life is not None and self.life.returncode is None:
            self.life.send_signal(number)


class _Supervisor:
    """Keeps the processes running, hands signals on, and waits for all of them."""

    def __init__(self, settings: Settings, count: int, *, drain: bool) -> None:
        self._settings = settings
        self._drain = drain
        self._processes = [_Process(index, f"{settings.name}-{index}") for index in range(count)]
        self._limit = asyncio.timeout(None)
        self._stopping = asyncio.Event()
        self._deaths = 0
        self._code = 0

    async def run(self) -> int:
        """The exit code, once every process has ended for good."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        try:
            async with self._limit, asyncio.TaskGroup() as tasks:
                for process in self._processes:
                    tasks.create_task(self._keep(process))
        except TimeoutError:
            await self._kill()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
        log.info("all processes ended", deaths=self._deaths, code=self._code)
        return self._code

    async def _keep(self, process: _Process) -> None:
        """Keep one process running until it has ended for good."""
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
            code = await self._live(process)
            if self._ended_for_good(process, code):
                return
            await self._rest(process, code, lived=loop.time() - began)
            process.restarts += 1

    async def _live(self, process: _Process) -> int | None:
        """One life of a process: its exit code, negative for a signal; None where it could not be started."""
        arguments = ["run", "--supervised", "--restarts", str(process.restarts)]
        try:
            # A session of its own: Ctrl-C in the terminal is the supervisor's to hand on, or it would count twice.
            life = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "worker"),
                *arguments,
                *(["--drain"] if self._drain else []),
                stdin=asyncio.subprocess.PIPE,
                env={**os.environ, **child_settings(self._settings, process.index)},
                start_new_session=True,
            )
        except OSError as error:
            log.error("process not started", process=process.name, error=str(error))
            return None
        process.life = life
        log.info("process started", **process.known, restarts=process.restarts)
        if self._stopping.is_set():  # told to stop while it was being started
            process.signal(signal.SIGTERM)
        return await life.wait()

    def _ended_for_good(self, process: _Process, code: int | None) -> bool:
        """Whether a process is not to be started again; where that would not help, all are told to stop."""
        stopping = self._stopping.is_set()
        told = stopping and code in (-signal.SIGTERM, None)  # before it could listen for the signal
        if told or (code == 0 and (stopping or self._drain)):
            log.info("process ended", **process.known, code=code)
        elif code == _MISCONFIGURED or (code == _UNAVAILABLE and not process.restarts):
            log.error("process ended", **process.known, code=code, why="it cannot start: all end")
            self._code = self._code or code
            if not stopping:
                self._stop()
        elif stopping:
            self._deaths += 1
            log.error("process died", **process.known, code=code, cause=_cause(code))
            self._code = self._code or max(code or 0, 1)
        else:
            return False
        return True

    async def _rest(self, process: _Process, code: int | None, *, lived: float) -> None:
        """Wait before a dead process is started again, longer with every death in a row, at most until told to stop."""
        if lived >= self._settings.restart_reset_after and code != _UNAVAILABLE:
            process.deaths_in_a_row = 0
        process.deaths_in_a_row += 1
        self._deaths += 1
        pause = restart_pause(process.deaths_in_a_row, self._settings.restart_longest)
        log.error(
            "process died",
            **process.known,
            code=code,
            cause=_cause(code),
            deaths_in_a_row=process.deaths_in_a_row,
            seconds=round(pause, 2),
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._stopping.wait()

    def _stop(self) -> None:
        """Tell every process to stop; told twice, they end at once."""
        if not self._stopping.is_set():
            now = asyncio.get_running_loop().time()
            self._limit.reschedule(now + self._settings.grace + _AFTER_GRACE)
        self._stopping.set()
        for process in self._processes:
            process.signal(signal.SIGTERM)

    async def _kill(self) -> None:
        """End what did not end within the grace period."""
        self._code = self._code or 1
        for process in self._processes:
            if process.life is not None and process.life.returncode is None:
                log.error("process killed", process=process.name, pid=process.life.pid)
                process.signal(signal.SIGKILL)
                await process.life.wait()


async def supervise(settings: Settings, count: int, *, drain: bool) -> int:
    """Keep this many worker processes running; 0 when all ended as told. Raises Misconfigured where ports run out."""
    if settings.http_port and settings.http_port + count - 1 > _LARGEST_PORT:
        raise Misconfigured(
            f"WORKER_HTTP_PORT {settings.http_port} leaves no ports for {count} processes; choose a lower one"
        )
    return await _Supervisor(settings, count, drain=drain).run()


def restart_pause(deaths_in_a_row: int, longest: float) -> float:
    """Seconds until a process that died is started again: doubled with every death in a row, with jitter."""
    doubled = _FIRST_PAUSE * float(1 << min(deaths_in_a_row - 1, 20))
    return min(doubled, longest) * random.uniform(0.5, 1)  # noqa: S311 (jitter)


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


def _cause(code: int | None) -> str:
    """What ended a process, in words; the kernel ends one that is out of memory by SIGKILL."""
    if code is None:
        return "it could not be started"
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
