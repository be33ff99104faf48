"""One run: a fresh place, a backlog, one contender, its rate, its CPU seconds, and the checks.

The clock runs from the first delivery (the first moment at which the queue holds less than was published, looked for
every 5 ms) to the commit of the last row (by the server's own record of it): starting a process is nobody's figure. CPU
is counted from the same first moment until all rows are there and 0.2 s more, in which the last confirmations go out.
"""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import cpu, verify
from benchmarks.calibration import calibrate
from benchmarks.contenders import Contender
from benchmarks.contenders.bare_copy import BareCopy
from benchmarks.contenders.contender import Processes
from benchmarks.load import Load
from benchmarks.services import Place, Services

_START_SECONDS = 60.0
_RUN_SECONDS = 300.0
_FIRST_EVERY = 0.005
_LAST_EVERY = 0.05
_LAST_SELDOM = 0.25
_AFTER = 0.2


@dataclass
class Measurement:
    """What one run gave."""

    contender: str
    load: str
    messages: int
    bytes_each: int
    seconds: float
    cpu_per_10k: dict[str, float]
    """CPU seconds for 10,000 messages, by process; their sum is `cpu_total`."""
    memory_mib: float
    calibration: float
    others: float
    """Cores that everything else on the machine was busy with meanwhile."""
    problems: list[str] = field(default_factory=list)
    disk_mb: float = 0.0
    """Megabytes that 10,000 messages take in the tables of their rows, with indexes; where it was looked at."""

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    @property
    def cpu_total(self) -> float:
        """CPU seconds of worker, broker and database together for 10,000 messages."""
        return sum(self.cpu_per_10k.values())


@dataclass
class _Clock:
    """When it began, and what had been used by then."""

    first: float
    before: cpu.Usage


@dataclass
class _End:
    """When it was over, and what had been used by then."""

    after: cpu.Usage
    looked: float
    memory: float
    last: float = 0.0


Check = Callable[[Place, Load, Sequence[str]], Awaitable[list[str]]]
"""What looks at a run afterwards, and says what is wrong."""


async def measure(services: Services, contender: Contender, load: Load) -> Measurement:
    """Run it once in a fresh place. Raises RuntimeError where the contender fails or does not come to its end."""
    async with services.place() as place:
        found = await measure_in(services, place, contender, load)
        found.disk_mb = await verify.disk_bytes(place.database, load) / len(load) / 100
        return found


async def measure_in(
    services: Services,
    place: Place,
    contender: Contender,
    load: Load,
    check: Check = verify.verify,
) -> Measurement:
    """Run it once in this place, whatever it holds already."""
    load = contender.prepared(load)
    await contender.fill(place, load)
    await services.settle(place)
    speed = calibrate()
    if isinstance(contender, BareCopy):
        clock, end = await _copy(services, contender, place, load)
        problems = await verify.facts(place.database, load)
    else:
        clock, end = await _drain(services, contender, place, load)
        problems = await check(place, load, contender.queues(load))
        end.last = await verify.last_commit(place.database, load) or end.looked
    return _measurement(contender, load, clock, end, speed, problems)


async def _drain(
    services: Services, contender: Contender, place: Place, load: Load
) -> tuple["_Clock", "_End"]:
    queues = contender.queues(load)
    async with started(contender, place, load) as processes:
        pids = {**services.pids, **{f"worker-{at}": pid for at, pid in enumerate(processes.pids)}}
        clock = await _first_delivery(place, queues, processes, pids)
        memory = await _all_stored(place, load, queues, processes)
        await asyncio.sleep(_AFTER)
        return clock, _End(cpu.look(pids), time.time(), memory)


async def _copy(
    services: Services, contender: BareCopy, place: Place, load: Load
) -> tuple["_Clock", "_End"]:
    """Bare COPY runs in this process, whose CPU seconds are then the worker's."""
    copies = contender.copies(place.database, load)
    await anext(copies)
    clock = _Clock(time.time(), _own(services))
    async for _ in copies:
        pass
    last = time.time()
    return clock, _End(_own(services), last, 0.0, last)


def _own(services: Services) -> cpu.Usage:
    """As cpu.look, but of this process alone: the services are its children."""
    usage = cpu.look({"database": services.pids["database"]})
    return cpu.Usage({**usage.seconds, "worker-0": time.process_time()}, usage.machine)


@contextlib.asynccontextmanager
async def started(contender: Contender, place: Place, load: Load) -> AsyncIterator[Processes]:
    """The contender's processes, ended and their log removed at the end of the block."""
    with (
        tempfile.TemporaryDirectory(prefix="agent-persistence-bench-") as folder,
        contender.running(place, load, Path(folder, "log")) as processes,
    ):
        yield processes


async def _first_delivery(
    place: Place, queues: tuple[str, ...], processes: Processes, pids: dict[str, int | None]
) -> _Clock:
    full = await place.broker.waiting(queues)
    async with asyncio.timeout(_START_SECONDS):
        while await place.broker.waiting(queues) >= full:
            processes.check()
            await asyncio.sleep(_FIRST_EVERY)
    return _Clock(time.time(), cpu.look(pids))


async def _all_stored(
    place: Place, load: Load, queues: tuple[str, ...], processes: Processes
) -> float:
    """Wait for the queues first, which costs little, and only then ask the database; the most MiB that were held."""
    try:
        async with asyncio.timeout(_RUN_SECONDS):
            pause = _LAST_EVERY
            while await place.broker.waiting(queues):
                processes.check()
                await asyncio.sleep(pause)
                pause = min(1.02 * pause, _LAST_SELDOM)
            memory = sum(map(cpu.peak_memory, processes.pids))
            while not await verify.stored(place.database, load):
                processes.check()
                await asyncio.sleep(_LAST_EVERY)
            return memory
    except TimeoutError:
        problems = await verify.facts(place.database, load)
        raise RuntimeError(f"not done after {_RUN_SECONDS:.0f} s: {'; '.join(problems)}") from None


def _measurement(
    contender: Contender, load: Load, clock: _Clock, end: _End, speed: float, problems: list[str]
) -> Measurement:
    used = end.after.since(clock.before)
    machine = end.after.machine - clock.before.machine
    workers = sum(value for name, value in used.items() if name.startswith("worker"))
    services = {name: value for name, value in used.items() if not name.startswith("worker")}
    return Measurement(
        contender=contender.name,
        load=load.name,
        messages=len(load),
        bytes_each=round(load.size),
        seconds=end.last - clock.first,
        cpu_per_10k={
            name: value * 10_000 / len(load)
            for name, value in {"worker": workers, **services}.items()
        },
        memory_mib=end.memory,
        calibration=speed,
        others=max(0.0, machine - sum(used.values())) / max(end.looked - clock.first, 0.01),
        problems=problems,
    )
