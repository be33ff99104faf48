"""One run: a fresh place, a backlog, one contender, its rate, its CPU seconds, and the checks.

The clock runs from the first delivery (the first moment at which the queue holds less than was published, looked for
every 5 ms) to the commit of the last row (by the server's own record of it): starting a process is nobody's figure. CPU
is counted from the same first moment until all rows are there and 0.2 s more, in which the last confirmations go out.
"""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator
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


async def measure(services: Services, contender: Contender, load: Load) -> Measurement:
    """Run it once. Raises RuntimeError where the contender fails or does not come to its end."""
    load = contender.prepared(load)
    async with services.place() as place:
        await contender.fill(place, load)
        await services.settle(place)
        calibration = calibrate()
        if isinstance(contender, BareCopy):
            return await _measure_copy(services, contender, place, load, calibration)
        return await _measure_drain(services, contender, place, load, calibration)


async def _measure_drain(
    services: Services, contender: Contender, place: Place, load: Load, calibration: float
) -> Measurement:
    queues = contender.queues(load)
    async with _started(contender, place, load) as processes:
        pids = {**services.pids, **{f"worker-{at}": pid for at, pid in enumerate(processes.pids)}}
        clock = await _first_delivery(place, queues, processes, pids)
        await _all_stored(place, load, queues, processes)
        await asyncio.sleep(_AFTER)
        after, ended = cpu.look(pids), time.time()
        memory = sum(map(cpu.peak_memory, processes.pids))
    problems = await verify.verify(place, load, queues)
    last = await verify.last_commit(place.database, load)
    return _measurement(contender, load, last - clock.first, clock, after, ended, memory, calibration, problems)  # fmt: skip


async def _measure_copy(
    services: Services, contender: BareCopy, place: Place, load: Load, calibration: float
) -> Measurement:
    """Bare COPY runs in this process, whose CPU seconds are then the worker's."""
    pids = {"database": services.pids["database"], "worker-0": Path("/proc/self").resolve().name}
    numbers = {name: int(pid) for name, pid in pids.items() if pid is not None}
    copies = contender.copies(place.database, load)
    await anext(copies)
    clock = _Clock(time.time(), _own(numbers))
    async for _ in copies:
        pass
    last = time.time()
    after = _own(numbers)
    problems = await verify.facts(place.database, load)
    return _measurement(contender, load, last - clock.first, clock, after, last, 0.0, calibration, problems)  # fmt: skip


def _own(pids: dict[str, int]) -> cpu.Usage:
    """As cpu.look, but of this process alone: the services are its children."""
    usage = cpu.look({"database": pids.get("database")})
    return cpu.Usage({**usage.seconds, "worker-0": time.process_time()}, usage.machine)


@contextlib.asynccontextmanager
async def _started(contender: Contender, place: Place, load: Load) -> AsyncIterator[Processes]:
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
) -> None:
    """Wait for the queues first, which costs little, and only then ask the database."""
    try:
        async with asyncio.timeout(_RUN_SECONDS):
            while await place.broker.waiting(queues):
                processes.check()
                await asyncio.sleep(_LAST_EVERY)
            while not await verify.stored(place.database, load):
                processes.check()
                await asyncio.sleep(_LAST_EVERY)
    except TimeoutError:
        problems = await verify.facts(place.database, load)
        raise RuntimeError(f"not done after {_RUN_SECONDS:.0f} s: {'; '.join(problems)}") from None


def _measurement(
    contender: Contender,
    load: Load,
    seconds: float,
    clock: _Clock,
    after: cpu.Usage,
    ended: float,
    memory: float,
    calibration: float,
    problems: list[str],
) -> Measurement:
    used = after.since(clock.before)
    machine = after.machine - clock.before.machine
    workers = sum(value for name, value in used.items() if name.startswith("worker"))
    by_name = {name: value for name, value in used.items() if not name.startswith("worker")}
    scale = 10_000 / len(load)
    return Measurement(
        contender=contender.name,
        load=load.name,
        messages=len(load),
        bytes_each=round(load.size),
        seconds=seconds,
        cpu_per_10k={name: value * scale for name, value in {"worker": workers, **by_name}.items()},
        memory_mib=memory,
        calibration=calibration,
        others=max(0.0, machine - sum(used.values())) / max(ended - clock.first, 0.01),
        problems=problems,
    )
