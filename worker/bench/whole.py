"""The whole: worker processes between a broker and a database, at a low rate and with a backlog.

The clock of a backlog begins for all processes at once: they are stopped, as by a debugger, while it is published, and
continued together. So no figure holds the start of a process, and none of them has emptied the queues before the last
one was attached.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from uuid import UUID

from worker.bench import broker, machine
from worker.bench.events import Item
from worker.bench.hearing import Hearing
from worker.broker.outgoing import Outgoing
from worker.broker.sender import Sender
from worker.demo.processes import WorkerProcess, start_worker
from worker.errors import Unavailable
from worker.settings import Settings

_WARM = 50
"""The first messages at a low rate: they prepare statements, and are not in the figures."""
_PATIENCE = 60.0
_SHORTEST_SLEEP = 0.001


@dataclass(frozen=True)
class Latency:
    """Seconds from the moment at which a message was to be published, to its confirmation as persisted."""

    rate: float
    messages: int
    p50: float
    p99: float
    broker_confirm: float
    """The median until the broker confirmed it to the publisher: the broker's own share of it."""


@dataclass(frozen=True)
class Backlog:
    """From the moment at which the workers began, to the last confirmation."""

    messages: int
    confirmed: int
    seconds: float
    worker_cpu: float | None
    """CPU seconds of all worker processes together."""
    machine_busy: float | None

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.confirmed / self.seconds


class Whole:
    """Worker processes that are attached, and a listener."""

    def __init__(
        self, settings: Settings, workers: Sequence[WorkerProcess], hearing: Hearing
    ) -> None:
        self._settings = settings
        self._workers = workers
        self._hearing = hearing

    async def latency(self, items: Sequence[Item], rate: float) -> Latency:
        """Publish at this rate, and wait for every confirmation. Raises Unavailable."""
        due: dict[UUID, float] = {}
        sent_at: dict[int, float] = {}
        taken: list[float] = []
        fates = broker.Fates()

        def on_fate(sent: Outgoing) -> None:
            taken.append(time.monotonic() - sent_at.pop(id(sent)))
            fates.note(sent)

        async with Sender(self._settings.broker, name="bench publisher", on_fate=on_fate) as sender:
            begin = time.monotonic()
            for number, item in enumerate(items):
                due[item.id] = begin + number / rate
                if (ahead := due[item.id] - time.monotonic()) > _SHORTEST_SLEEP:
                    await asyncio.sleep(ahead)
                sent = broker.outgoing(item)
                sent_at[id(sent)] = time.monotonic()
                await sender.send(sent)
            await sender.finish()
        fates.check()
        await self._hearing.all(due, self._look, _PATIENCE)
        measured = [item.id for item in items[_WARM:]] or [item.id for item in items]
        heard = self._hearing.persisted
        waits = [heard[key] - due[key] for key in measured if key in heard]
        if not waits:
            raise Unavailable(f"no message was confirmed within {_PATIENCE:.0f} s")
        return Latency(
            rate,
            len(waits),
            percentile(waits, 0.5),
            percentile(waits, 0.99),
            percentile(taken, 0.5),
        )

    async def backlog(self, items: Sequence[Item]) -> Backlog:
        """Publish these while the workers stand still, then let them go. Raises Unavailable."""
        ids = [item.id for item in items]
        async with standing_still([worker.pid for worker in self._workers]):
            await broker.publish(self._settings, items)
            used, busy = self._used(), machine.busy_seconds()
            begin = time.monotonic()
        await self._hearing.all(ids, self._look, _PATIENCE)
        after, busy_after = self._used(), machine.busy_seconds()
        heard = self._hearing.persisted
        times = [heard[key] for key in ids if key in heard]
        return Backlog(
            messages=len(ids),
            confirmed=len(times),
            seconds=max(times, default=time.monotonic()) - begin,
            worker_cpu=None if used is None or after is None else after - used,
            machine_busy=machine.share_busy(busy, busy_after),
        )

    def _look(self) -> None:
        """Raises Unavailable where a worker has ended."""
        for worker in self._workers:
            if worker.code is not None:
                raise Unavailable(f"{worker.name} ended: {worker.last_words()}")

    def _used(self) -> float | None:
        seconds = [machine.process_seconds(worker.pid) for worker in self._workers]
        known = [one for one in seconds if one is not None]
        return sum(known) if len(known) == len(seconds) else None


@asynccontextmanager
async def standing_still(pids: Sequence[int]) -> AsyncIterator[None]:
    """Stop these processes until the end of the block.

    A shell holds the other end of a pipe and lets them go when this process is gone: a stopped process notices nothing.
    """
    guard = await asyncio.create_subprocess_exec(
        *("sh", "-c", 'read -r _; kill -s CONT "$@"', "sh"),
        *map(str, pids),
        stdin=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us
    )
    assert guard.stdin is not None  # noqa: S101 (a pipe)
    try:
        _tell(pids, signal.SIGSTOP)
        yield
    finally:
        _tell(pids, signal.SIGCONT)
        guard.stdin.close()
        await guard.wait()


def _tell(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@asynccontextmanager
async def workers(
    environment: Mapping[str, str], folder: Path, count: int, problems: list[str]
) -> AsyncIterator[list[WorkerProcess]]:
    """Worker processes, attached to their queues; each must end in order at the end of the block, or is a problem.

    Raises Unavailable where one does not start.
    """
    started: list[WorkerProcess] = []
    try:
        while len(started) < count:
            name = f"bench-worker-{len(started) + 1}"
            started.append(await start_worker(name, environment, folder))
        await asyncio.gather(*(worker.ready() for worker in started))
        yield started
    finally:
        await asyncio.gather(*(worker.stop() for worker in started))
    problems += [
        f"{worker.name} ended with {worker.code}: {worker.last_words()}"
        for worker in started
        if worker.code
    ]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all are not above (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]
