"""The composition root: settings to engine, broker and families, run as one task group until told to stop.

Owns start-up checks, reconnection, signals, shutdown and drain. Shutdown in five steps: stop intake, flush what is in
hand, commit, settle, confirm; then close. A second signal, or the grace period, leaves the rest to redelivery.
"""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import structlog

from worker import crash_points, families, health, telemetry, undelivered
from worker.batch import Batcher, Solitude
from worker.broker import topology
from worker.broker.connection import BrokerConnection, check_internals, connect
from worker.broker.consumer import ByteBudget, Subscription
from worker.decode import Decoder
from worker.errors import Misconfigured, Unavailable
from worker.pause import Pause
from worker.pipeline import Decode, Pipeline
from worker.relay import Relay
from worker.settings import Settings
from worker.store import outbox
from worker.store.database import Database
from worker.store.migrations import missing
from worker.store.persist import Persister
from worker.store.writer import Writer

log = structlog.get_logger()
T = TypeVar("T")

_SPECIAL = (topology.UNROUTED_FAMILY, topology.DEAD_LETTER_FAMILY)


class App:
    """One worker process."""

    def __init__(self, settings: Settings, *, drain: bool = False) -> None:
        self.settings = settings
        self.database = Database(
            settings.database, name=settings.name, statement_timeout=settings.statement_timeout
        )
        self.relay = Relay(
            self.database,
            settings.broker,
            worker=settings.name,
            sweep_after=settings.outbox_sweep_after,
            retry_longest=settings.retry_longest,
        )
        self.stop = asyncio.Event()
        self.names = chosen_families(settings.family_names)
        self._drain = drain
        self._budget = ByteBudget(settings.memory_budget)
        self._pipelines = _pipelines(self)
        self._subscriptions: dict[str, Subscription] = {}
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Work until stopped or drained. Raises Misconfigured, or Unavailable where a service is away at start."""
        crash_points.arm(self.settings.crash_point or "none")
        telemetry.declare_families(self.names)
        try:
            connection = await self._start()
            await self._work(connection)
        finally:
            await self.database.close()
        log.info("stopped")

    async def _start(self) -> BrokerConnection:
        """Check everything that would make work impossible; returns the first connection."""
        check_internals()
        deadline = time.monotonic() + self.settings.start_timeout
        version = await _until(deadline, self.database.check)
        async with self.database.connection() as connection:
            absent = await missing(connection, families.required_revisions(self.names))
        if absent:
            raise Misconfigured(
                f"the database at {self.settings.database_place} lacks migrations {', '.join(sorted(absent))}: "
                "run 'alembic upgrade head'"
            )
        broker = await _until(
            deadline, lambda: connect(self.settings.broker, name=self.settings.name)
        )
        problems = await topology.check(broker, topology.topology(_contracts(self.names)))
        if problems:
            await broker.close()
            raise Misconfigured(
                f"RabbitMQ at {self.settings.broker_place} is not set up: {'; '.join(problems)}. "
                "Run 'worker topology apply'"
            )
        log.info("started", postgresql=version, broker=broker.server, families=sorted(self.names))
        return broker

    async def _work(self, connection: BrokerConnection) -> None:
        listener = None
        if self.settings.http_port:
            listener = health.listen(self.settings.http_host, self.settings.http_port)
        try:
            async with asyncio.TaskGroup() as tasks:
                background = [tasks.create_task(self.relay.run())]
                if listener is not None:
                    background.append(tasks.create_task(health.serve(self._checks(), listener)))
                if self._drain:
                    background.append(tasks.create_task(self._stop_when_drained()))
                consuming = tasks.create_task(self._consume(connection))
                tasks.create_task(self._shut_down(consuming, background))
        except* Misconfigured as group:
            raise _first_leaf(group) from None

    async def _shut_down(
        self, consuming: asyncio.Task[None], background: list[asyncio.Task[None]]
    ) -> None:
        """Once told to stop: let the pipelines finish within the grace period, then the confirmations, then end."""
        await self.stop.wait()
        log.info("stopping", seconds=self.settings.grace)
        try:
            async with asyncio.timeout(self.settings.grace):
                await asyncio.gather(*(s.stop() for s in self._subscriptions.values()))
                await asyncio.wait([consuming])
                await self.relay.idle()
        except TimeoutError:
            log.warning("grace period over: what is in hand is left to redelivery")
            consuming.cancel()
        self._stopped.set()
        for task in background:
            task.cancel()

    # --- consuming ---

    async def _consume(self, connection: BrokerConnection) -> None:
        """Serve one connection after another."""
        while not self.stop.is_set():
            try:
                async with asyncio.TaskGroup() as tasks:
                    for family, pipeline in self._pipelines.items():
                        tasks.create_task(self._serve(connection, family, pipeline))
            finally:
                await connection.close()
            if self.stop.is_set():
                return
            log.warning("connection lost")
            telemetry.reconnections.inc()
            again = await self._reconnect()
            if again is None:
                return
            connection = again

    async def _serve(self, connection: BrokerConnection, family: str, pipeline: Pipeline) -> None:
        """Keep one family attached as long as the connection lasts."""
        pause = 0.05
        queues = self._queues(family)
        while not (self.stop.is_set() or connection.lost.is_set()):
            try:
                subscription = await Subscription.open(
                    connection, queues, self._budget, self.settings.prefetch
                )
            except Unavailable as error:
                log.error("not attached", family=family, error=str(error))
                await self._sleep(pause)
                pause = min(2 * pause, self.settings.retry_longest)
                continue
            pause = 0.05
            self._subscriptions[family] = subscription
            telemetry.attached.labels(family).set(1)
            if self.stop.is_set():
                await subscription.stop()
            try:
                await pipeline.run(subscription)
            finally:
                telemetry.attached.labels(family).set(0)
                self._subscriptions.pop(family, None)
                await subscription.close()

    def _queues(self, family: str) -> Mapping[str, str]:
        """Queue to family of what one family consumes."""
        if family == topology.DEAD_LETTER_FAMILY:
            all_families = (*families.families(), topology.UNROUTED_FAMILY)
            return {topology.dead_letter_queue_name(name): name for name in all_families}
        return {topology.queue_name(family): family}

    async def _reconnect(self) -> BrokerConnection | None:
        """A new connection, with jittered back-off so that many workers do not storm a broker; None when stopping."""
        pause = 0.1
        while not self.stop.is_set():
            await self._sleep(pause)
            try:
                return await connect(self.settings.broker, name=self.settings.name)
            except (Unavailable, Misconfigured) as error:
                # It worked at start: a refusal now is a broker that is still starting, or being changed.
                log.warning("reconnecting", error=str(error))
                pause = min(2 * pause, self.settings.retry_longest)
        return None

    async def _sleep(self, pause: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause * random.uniform(0.5, 1)):  # noqa: S311 (jitter)
                await self.stop.wait()

    # --- drain and health ---

    async def _stop_when_drained(self) -> None:
        """Stop once the queues, what is in hand and the outbox are empty."""
        while not self.stop.is_set():
            await self._sleep(0.3)
            try:
                if await self._is_drained():
                    log.info("drained")
                    self.stop.set()
            except Unavailable as error:
                log.warning("cannot see whether the queues are empty", error=str(error))

    async def _is_drained(self) -> bool:
        if len(self._subscriptions) < len(self._pipelines) or any(
            subscription.in_hand for subscription in self._subscriptions.values()
        ):
            return False
        connection = await connect(self.settings.broker, name=f"{self.settings.name} drain")
        try:
            for family in self._pipelines:
                for queue in self._queues(family):
                    if await topology.message_count(connection, queue):
                        return False
        finally:
            await connection.close()
        await self.relay.idle()
        async with self.database.transaction() as driver:
            waiting = await outbox.count(driver)
        return not waiting and not any(s.in_hand for s in self._subscriptions.values())

    def _checks(self) -> dict[str, health.Check]:
        return {"queues": self._queues_ready, "database": self._database_ready}

    async def _queues_ready(self) -> str | None:
        absent = sorted(self._pipelines.keys() - self._subscriptions.keys())
        return f"not attached to the queues of {', '.join(absent)}" if absent else None

    async def _database_ready(self) -> str | None:
        try:
            async with self.database.connection() as connection:
                absent = await missing(connection, families.required_revisions(self.names))
        except (Unavailable, Misconfigured) as error:
            return str(error)
        return f"migrations {', '.join(sorted(absent))} are missing" if absent else None


def chosen_families(names: tuple[str, ...]) -> tuple[str, ...]:
    """The families to consume: all, or those named. Raises Misconfigured for a name that is none."""
    known = (*families.families(), *_SPECIAL)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Misconfigured(
            f"{', '.join(unknown)} is not a family; these are: {', '.join(known)}"
        )
    return names or known


def _contracts(names: tuple[str, ...]) -> list["families.registry.ContractFamily"]:
    """The contract families among these; all of them where the special queues are consumed, since those serve all."""
    chosen = set(families.families()) if set(names) & set(_SPECIAL) else set(names)
    return [family.contract for name, family in families.families().items() if name in chosen]


def _pipelines(app: App) -> dict[str, Pipeline]:
    """One pipeline a chosen family, sharing writer and solitude."""
    settings = app.settings
    writer = Writer(families.plan())
    solitude = Solitude()
    return {
        name: Pipeline(
            name,
            _decode(name, settings),
            Persister(app.database, writer, name, settings.reply_queues),
            app.database,
            app.relay,
            Batcher(settings.batch_messages, settings.batch_bytes),
            Pause(
                seconds=settings.pause_seconds,
                window=settings.pause_window,
                minimum=settings.pause_minimum,
                sources=settings.pause_sources,
            ),
            solitude,
            transactions=settings.transactions,
            retry_longest=settings.retry_longest,
        )
        for name in app.names
    }


def _decode(name: str, settings: Settings) -> Decode:
    match name:
        case topology.UNROUTED_FAMILY:
            return undelivered.unroutable
        case topology.DEAD_LETTER_FAMILY:
            return undelivered.dead_lettered
        case _:
            contract = families.families()[name].contract
            return Decoder(contract, settings.max_body_bytes).decode


async def _until(deadline: float, step: Callable[[], Awaitable[T]]) -> T:
    """Try a step until it works; raises Unavailable once the deadline has passed."""
    pause = 0.1
    while True:
        try:
            return await step()
        except Unavailable as error:
            if time.monotonic() + pause > deadline:
                raise
            log.warning("waiting for a service", error=str(error))
            await asyncio.sleep(pause)
            pause = min(2 * pause, 2)


def _first_leaf(group: BaseExceptionGroup[Misconfigured]) -> Misconfigured:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Misconfigured)  # noqa: S101 (except* selected it)
    return error


async def run(settings: Settings, *, drain: bool = False) -> None:
    """Run one worker process until SIGTERM or SIGINT; a second signal ends it at once."""
    app = App(settings, drain=drain)
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 (we are in one)

    def on_signal() -> None:
        if app.stop.is_set():
            task.cancel()
        app.stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        await app.run()
    except asyncio.CancelledError:
        log.warning("ended by a second signal: what is in hand is left to redelivery")
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
