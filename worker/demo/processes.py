"""Worker processes of the demonstration and of torture: `worker run`, each with its log in a file."""

import asyncio
import contextlib
import os
import signal
import sys
import urllib.error
import urllib.request
from asyncio.subprocess import Process
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from worker.errors import Unavailable
from worker.sandbox.processes import free_port

State = Literal["starting", "running", "killed", "stopped"]

_START_SECONDS = 60
_STOP_SECONDS = 15


class WorkerProcess:
    """One `worker run`."""

    def __init__(self, name: str, process: Process, port: int, log: Path) -> None:
        self.name = name
        self.port = port
        self.log = log
        self.state: State = "starting"
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ready(self) -> None:
        """Wait until it is attached to its queues. Raises Unavailable where it ends before, with what it logged last."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                while self._process.returncode is None:
                    if await asyncio.to_thread(self._is_ready):
                        self.state = "running"
                        return
                    await asyncio.sleep(0.05)
        raise Unavailable(f"{self.name} did not start: {self.last_words()}")

    @property
    def code(self) -> int | None:
        """Its exit code once it has ended, negative for a signal."""
        return self._process.returncode

    def last_words(self) -> str:
        """What it logged last."""
        tail = self.log.read_text(errors="replace").strip().splitlines()[-5:]
        return " / ".join(tail) or "it logged nothing"

    async def ended(self) -> int:
        """Its exit code, once it has ended by itself or by a signal."""
        return await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        if self._process.returncode is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.signal(signal.SIGKILL)
        self.state = "killed"

    async def stop(self) -> None:
        """Let it finish what it has in hand, then end it."""
        if self._process.returncode is None and self.state != "killed":
            self._process.send_signal(signal.SIGTERM)
            self.state = "stopped"
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _is_ready(self) -> bool:
        url = f"http://127.0.0.1:{self.port}/readyz"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(answer.status == 200)  # noqa: PLR2004 (OK)
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except OSError:
            return False


class Workers:
    """All worker processes, in the order in which they were started."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self.all: list[WorkerProcess] = []

    async def start(self) -> WorkerProcess:
        """Start one more; it is not ready yet."""
        name = f"worker-{len(self.all) + 1}"
        worker = await start_worker(name, self._environment, self._folder)
        self.all.append(worker)
        return worker

    async def stop(self) -> None:
        """End all of them."""
        await asyncio.gather(*(worker.stop() for worker in self.all))


async def start_worker(
    name: str, environment: Mapping[str, str], folder: Path, *arguments: str
) -> WorkerProcess:
    """Start a `worker run`; it is not ready yet, and ends when this process does."""
    port = free_port()
    log = folder / f"{name}.log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "worker",
            "run",
            "--supervised",  # it ends when the other end of the pipe is closed
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=file,
            stderr=file,
            env={
                **os.environ,
                **environment,
                "WORKER_NAME": name,
                "WORKER_HTTP_HOST": "127.0.0.1",
                "WORKER_HTTP_PORT": str(port),
            },
            start_new_session=True,  # Ctrl-C is for us, who end our workers ourselves
        )
    return WorkerProcess(name, process, port, log)
