"""What is done to workers, to their network and to the services, and in which order.

A fault begins, lasts, and is mended again in one function. Promises that the same seed gives the same sequence of
faults for the same choice of them, and that a fault which is interrupted is mended all the same.
"""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import asyncpg

from worker.crash_points import CrashPoint
from worker.sandbox import Service
from worker.torture.crew import Place
from worker.torture.proxy import Proxy
from worker.torture.stage import Stage

Target = Literal["worker", "broker network", "database network", "broker", "database"]

_ALARM, _NO_ALARM = "0.0000001", "0.4"
_CRASH_POINTS = tuple(point for point in get_args(CrashPoint) if point != "none")


@dataclass(frozen=True)
class Strike:
    """One fault as it was drawn: after how long, of which kind, for how long; `detail` chooses the rest."""

    fault: "Fault"
    pause: float
    seconds: float
    detail: float


@dataclass(frozen=True)
class Fault:
    """A kind of fault. `weight` is how often it is drawn, compared with others."""

    name: str
    text: str
    target: Target
    weight: int
    strike: Callable[[Stage, Place, Strike], Awaitable[None]]

    @property
    def on_worker(self) -> bool:
        """Whether it is done to one worker, or to its network, and not to a service."""
        return self.target not in ("broker", "database")


def draw(seed: str, faults: Collection[Fault], every: float) -> Iterator[Strike]:
    """Faults without end, the same for the same seed; none where there is nothing to draw from."""
    chance = random.Random(seed)  # noqa: S311 (a run that can be repeated)
    known = sorted(faults, key=lambda fault: fault.name)
    weights = [fault.weight for fault in known]
    while known:
        [fault] = chance.choices(known, weights)
        yield Strike(
            fault,
            pause=chance.uniform(0.3, 1.7) * every,
            seconds=chance.uniform(0.3, 6),
            detail=chance.random(),
        )


# --- workers ---


async def _kill(_: Stage, place: Place, strike: Strike) -> None:
    await place.kill()
    await asyncio.sleep(strike.detail)
    await place.start()


async def _terminate(_: Stage, place: Place, __: Strike) -> None:
    await place.terminate()
    await place.start()


async def _freeze(_: Stage, place: Place, strike: Strike) -> None:
    worker = place.worker
    worker.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(2 * strike.seconds)
    finally:
        worker.signal(signal.SIGCONT)


async def _crash(_: Stage, place: Place, strike: Strike) -> None:
    await place.kill()
    await place.crash(_CRASH_POINTS[int(strike.detail * len(_CRASH_POINTS))])
    await place.start()


async def _end_sessions(stage: Stage, place: Place, strike: Strike) -> None:
    """End the database sessions of one worker, or cancel what they are doing."""
    what = "pg_cancel_backend" if strike.detail < 0.3 else "pg_terminate_backend"  # noqa: PLR2004 (three in ten)
    connection = await asyncpg.connect(stage.plain_database_url, timeout=10)
    try:
        await connection.fetch(
            f"SELECT {what}(pid) FROM pg_stat_activity "  # noqa: S608 (one of two constants)
            "WHERE application_name = $1 AND datname = current_database()",
            place.name,
        )
    finally:
        await connection.close(timeout=5)


async def _lock(stage: Stage, _: Place, strike: Strike) -> None:
    """Hold a lock that every transaction has to wait for."""
    connection = await asyncpg.connect(stage.plain_database_url, timeout=10)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE")
            await asyncio.sleep(strike.seconds)
    finally:
        await connection.close(timeout=5)


# --- network ---


def _network(
    which: Literal["broker", "database"], begin: Callable[[Proxy, Strike], None]
) -> Callable[[Stage, Place, Strike], Awaitable[None]]:
    async def strike_network(_: Stage, place: Place, strike: Strike) -> None:
        proxy = place.broker if which == "broker" else place.database
        assert proxy is not None  # noqa: S101 (else the fault is not drawn)
        begin(proxy, strike)
        try:
            await asyncio.sleep(strike.seconds)
        finally:
            proxy.heal()

    return strike_network


_NETWORK: tuple[tuple[str, str, Callable[[Proxy, Strike], None]], ...] = (
    ("cut", "every connection of a worker closed", lambda proxy, _: proxy.cut()),
    ("refused", "a service that nobody can connect to", lambda proxy, _: proxy.refuse()),
    ("half-open", "connections that swallow every byte", lambda proxy, _: proxy.swallow()),
    ("delay", "every piece comes late", lambda proxy, strike: proxy.delay(0.4 * strike.detail)),
    ("slow", "a thin line", lambda proxy, strike: proxy.slow(20_000 + 200_000 * strike.detail)),
)


# --- services ---


def _service(stage: Stage, which: Target) -> Service:
    service = stage.ground.postgres if which == "database" else stage.ground.rabbitmq
    assert service is not None  # noqa: S101 (else the fault is not drawn)
    return service


def _restart(which: Target) -> Callable[[Stage, Place, Strike], Awaitable[None]]:
    async def strike_service(stage: Stage, _: Place, __: Strike) -> None:
        await asyncio.to_thread(_service(stage, which).restart)

    return strike_service


def _power_cut(which: Target) -> Callable[[Stage, Place, Strike], Awaitable[None]]:
    async def strike_service(stage: Stage, _: Place, __: Strike) -> None:
        service = _service(stage, which)
        await asyncio.to_thread(service.kill)
        await asyncio.to_thread(service.start)

    return strike_service


def _pause(which: Target) -> Callable[[Stage, Place, Strike], Awaitable[None]]:
    async def strike_service(stage: Stage, _: Place, strike: Strike) -> None:
        service = _service(stage, which)
        await asyncio.to_thread(service.pause)
        try:
            await asyncio.sleep(strike.seconds)
        finally:
            await asyncio.to_thread(service.resume)

    return strike_service


async def _alarm(stage: Stage, _: Place, strike: Strike) -> None:
    """Let the broker believe that it is out of memory: it takes nothing from anybody."""
    assert stage.ground.rabbitmq is not None  # noqa: S101 (as above)
    control = stage.ground.rabbitmq.control
    await asyncio.to_thread(control, "set_vm_memory_high_watermark", _ALARM)
    try:
        await asyncio.sleep(strike.seconds)
    finally:
        await asyncio.to_thread(control, "set_vm_memory_high_watermark", _NO_ALARM)


FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("kill", "kill -9 of a worker", "worker", 6, _kill),
        Fault("terminate", "SIGTERM to a worker", "worker", 3, _terminate),
        Fault("freeze", "SIGSTOP, and SIGCONT after seconds", "worker", 4, _freeze),
        Fault("crash-point", "a worker that dies between two steps", "worker", 6, _crash),
        Fault("sessions", "database sessions ended, or cancelled", "worker", 4, _end_sessions),
        Fault("lock", "the outbox locked for seconds", "worker", 1, _lock),
        *(
            Fault(f"broker-{name}", text, "broker network", 1, _network("broker", begin))
            for name, text, begin in _NETWORK
        ),
        *(
            Fault(f"database-{name}", text, "database network", 1, _network("database", begin))
            for name, text, begin in _NETWORK
        ),
        Fault("database-restart", "PostgreSQL restarted", "database", 1, _restart("database")),
        Fault("database-kill", "kill -9 of PostgreSQL", "database", 1, _power_cut("database")),
        Fault("database-pause", "PostgreSQL stands still", "database", 1, _pause("database")),
        Fault("broker-restart", "RabbitMQ restarted", "broker", 1, _restart("broker")),
        Fault("broker-kill", "kill -9 of RabbitMQ", "broker", 1, _power_cut("broker")),
        Fault("broker-pause", "RabbitMQ stands still", "broker", 1, _pause("broker")),
        Fault("broker-alarm", "RabbitMQ's memory alarm", "broker", 1, _alarm),
    )
}
"""Every kind of fault by name."""
