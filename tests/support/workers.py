"""Workers for tests: in this process, or as processes of their own that can be killed."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from worker.app import App
from worker.settings import Settings


@dataclass
class Running:
    """A worker in this process."""

    app: App
    task: "asyncio.Task[None]"

    async def attached(self) -> None:
        """Wait until every queue is consumed."""
        async with asyncio.timeout(20):
            while await self.app._queues_ready() is not None:  # the same answer as /readyz
                if self.task.done():
                    await self.task
                await asyncio.wait([self.task], timeout=0.02)


@asynccontextmanager
async def running_worker(settings: Settings) -> AsyncIterator[Running]:
    """A worker that runs while the block does, and shuts down in an orderly way after it."""
    app = App(settings)
    running = Running(app, asyncio.create_task(app.run()))
    try:
        await running.attached()
        yield running
    finally:
        app.stop.set()
        async with asyncio.timeout(30):
            await running.task


async def drain(settings: Settings) -> None:
    """Run a worker in this process until the queues and the outbox are empty."""
    async with asyncio.timeout(60):
        await App(settings, until_drained=True).run()


def environment(settings: Settings, **extra: str) -> dict[str, str]:
    """The environment of a worker process with these settings."""
    return {
        **os.environ,
        "DATABASE_URL": settings.database,
        "AMQP_URL": settings.broker,
        "WORKER_HTTP_PORT": str(settings.http_port),
        "WORKER_RETRY_LONGEST": str(settings.retry_longest),
        "WORKER_OUTBOX_SWEEP_AFTER": str(settings.outbox_sweep_after),
        "WORKER_LOG_LEVEL": settings.log_level,
        **extra,
    }


@dataclass
class Process:
    """A worker process."""

    process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code, once it has ended; negative for a signal."""
        async with asyncio.timeout(60):
            return await self.process.wait()


@asynccontextmanager
async def worker_process(
    settings: Settings, *arguments: str, within: Sequence[str] = (), **extra: str
) -> AsyncIterator[Process]:
    """`worker run` as a process; killed at the end of the block if it still runs.

    `within`: a command that runs it somewhere else, such as `ip netns exec NAME`.
    """
    process = await asyncio.create_subprocess_exec(
        *within,
        sys.executable,
        "-m",
        "worker",
        "run",
        *arguments,
        env=environment(settings, **extra),
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()
