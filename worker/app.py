"""The composition root: settings to engine, broker and families, run as one task group until told to stop.

Owns start-up checks, reconnection, signals, shutdown and drain. Shutdown in five steps: stop intake, flush what is in
hand, commit, settle, confirm; then close. A second signal, or the grace period, leaves the rest to redelivery.
"""

import asyncio
import gc
import signal
import time

import structlog

from contracts.registry import ContractFamily
from worker import crash_points, drain, families, health, ledger_watch, telemetry, undelivered
from worker.attachment import Attachment
from worker.batch import Batcher, Solitude
from worker.broker import topology
from worker.broker.connection import BrokerConnection, check_internals, connect
from worker.decode import Decoder
from worker.errors import Misconfigured, Unavailable
from worker.operations import safety
from worker.patience import patiently
from worker.pause import Pause
from worker.pipeline import Decode, Pipeline
from worker.relay import Relay
from worker.settings import Settings
from worker.store.database import Database
from worker.store.encryption import cipher_of
from worker.store.foreign_keys import require_deferred
from worker.store.migrations import missing
from worker.store.persist import Persister
from worker.store.writer import Writer
from worker.tenants import TenantOfUser

log = structlog.get_logger()

_ONE_WISH = 1.0
"""Signals within so many seconds are one: a service manager may tell the supervisor and its processes alike."""
_SPECIAL = (topology.UNROUTED_FAMILY, topology.DEAD_LETTER_FAMILY)


class App:
    """One worker process."""

    def __init__(self, settings: Settings, *, until_drained: bool = False) -> None:
        self.settings = settings
        self.database = Database(
            settings.database,
            name=settings.name,
            pool_size=settings.pool_size,
            pool_overflow=settings.pool_overflow,
            pool_timeout=settings.pool_timeout,
            statement_timeout=settings.statement_timeout,
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
        self._until_drained = until_drained
        self.attachment = Attachment(settings, _pipelines(self), families.families(), self.stop)

    async def run(self) -> None:
        """Work until stopped or drained. Raises Misconfigured, or Unavailable where a service is away at start."""
        crash_points.arm(self.settings.crash_point or "none")
        telemetry.declare_families(self.names)
        try:
            connection = await self._start_unless_stopped()
            if connection is not None:
                await self._work(connection)
        finally:
            await self.database.close()
        log.info("stopped")

    async def _start_unless_stopped(self) -> BrokerConnection | None:
        """The first connection; None where it was told to stop while it still waited for a service."""
        starting = asyncio.create_task(self._start())
        stopping = asyncio.create_task(self.stop.wait())
        try:
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            return starting.result() if starting.done() else None
        finally:
            stopping.cancel()
            if starting.cancel():
                await asyncio.wait((starting,))

    async def _start(self) -> BrokerConnection:
        """Check everything that would make work impossible; returns the first connection."""
        check_internals()
        deadline = time.monotonic() + self.settings.start_timeout
        version = await patiently(self.settings.start_timeout, self._check_database)
        left = max(0, deadline - time.monotonic())
        await safety.refuse_unsafe(self.database, self.settings, left)
        left = max(0, deadline - time.monotonic())
        broker = await patiently(left, self._connect_and_check_topology)
        log.info("started", postgresql=version, broker=broker.server, families=sorted(self.names))
        return broker

    async def _check_database(self) -> str:
        """The server's version. Raises Unavailable, also where it goes away meanwhile; Misconfigured where tables do not fit."""
        version = await self.database.check()
        absent = await self._absent_revisions()
        if absent:
            raise Misconfigured(
                f"the database at {self.settings.database_place} lacks migrations {', '.join(sorted(absent))}: "
                "run 'alembic upgrade head'"
            )
        async with self.database.transaction() as driver:
            await require_deferred(driver, families.plan().facts.values())
        return version

    async def _connect_and_check_topology(self) -> BrokerConnection:
        """A connection. Raises Unavailable, also where it breaks meanwhile; Misconfigured where something is missing."""
        broker = await connect(self.settings.broker, name=self.settings.name)
        try:
            problems = await topology.check(broker, topology.topology(_contracts(self.names)))
        except BaseException:
            await broker.close()
            raise
        if problems:
            await broker.close()
            raise Misconfigured(
                f"RabbitMQ at {self.settings.broker_place} is not set up: {'; '.join(problems)}. "
                "Run 'worker topology apply'"
            )
        return broker

    async def _work(self, connection: BrokerConnection) -> None:
        settings, port = self.settings, self.settings.http_port
        listener = health.listen(settings.http_host, port) if port else None
        try:
            async with asyncio.TaskGroup() as tasks:
                background = [tasks.create_task(self.relay.run())]
                if listener is not None:
                    background.append(tasks.create_task(health.serve(self._checks(), listener)))
                    background.append(tasks.create_task(ledger_watch.watch(self.database)))
                if self._until_drained:
                    background.append(
                        tasks.create_task(
                            drain.stop_when_drained(
                                settings, self.attachment, self.relay, self.database, self.stop
                            )
                        )
                    )
                consuming = tasks.create_task(self.attachment.run(connection))
                tasks.create_task(self._shut_down(consuming, background))
        except BaseExceptionGroup as group:
            # Not `except*`: what is raised inside one may come out as a group again.
            misconfigured = group.subgroup(Misconfigured)
            if misconfigured is None:
                raise
            raise _first_leaf(misconfigured) from group

    async def _shut_down(
        self, consuming: asyncio.Task[None], background: list[asyncio.Task[None]]
    ) -> None:
        """Once told to stop: let the pipelines finish within the grace period, then the confirmations, then end."""
        await self.stop.wait()
        log.info("stopping", seconds=self.settings.grace)
        try:
            async with asyncio.timeout(self.settings.grace):
                await self.attachment.stop_intake()
                await asyncio.wait([consuming])
                await self.relay.idle()
        except TimeoutError:
            log.warning("grace period over: what is in hand is left to redelivery")
            consuming.cancel()
        finally:
            for task in background:
                task.cancel()

    def _checks(self) -> dict[str, health.Check]:
        return {"queues": self._queues_ready, "database": self._database_ready}

    async def _queues_ready(self) -> str | None:
        absent = self.attachment.absent
        return f"not attached to the queues of {', '.join(absent)}" if absent else None

    async def _database_ready(self) -> str | None:
        try:
            absent = await self._absent_revisions()
        except (Unavailable, Misconfigured) as error:
            return str(error)
        return f"migrations {', '.join(sorted(absent))} are missing" if absent else None

    async def _absent_revisions(self) -> set[str]:
        """The migrations that the chosen families need and the database lacks."""
        async with self.database.connection() as connection:
            return await missing(connection, families.required_revisions(self.names))


def chosen_families(names: tuple[str, ...]) -> tuple[str, ...]:
    """The families to consume: all, or those named. Raises Misconfigured for a name that is none."""
    known = (*families.families(), *_SPECIAL)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Misconfigured(f"{', '.join(unknown)} is not a family; these are: {', '.join(known)}")
    return names or known


def _contracts(names: tuple[str, ...]) -> list[ContractFamily]:
    """The contract families among these; all of them where the special queues are consumed, since those serve all."""
    chosen = set(families.families()) if set(names) & set(_SPECIAL) else set(names)
    return [family.contract for name, family in families.families().items() if name in chosen]


def _pipelines(app: App) -> dict[str, Pipeline]:
    """One pipeline a chosen family, sharing writer and solitude."""
    settings = app.settings
    writer = Writer(families.plan(), cipher_of(settings.encryption))
    solitude = Solitude(2 * settings.batch_bytes)
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
    """How messages of a family are decoded, and whether who published them is looked at."""
    rules = settings.tenant_rules
    decode = _decode_any(name, settings)
    return TenantOfUser(rules).checked(decode, settings.max_body_bytes) if rules else decode


def _decode_any(name: str, settings: Settings) -> Decode:
    match name:
        case topology.UNROUTED_FAMILY:
            return undelivered.unroutable
        case topology.DEAD_LETTER_FAMILY:
            return undelivered.dead_lettered
        case _:
            contract, facts = families.families()[name].contract, families.plan().facts
            return Decoder(contract, settings.max_body_bytes, facts=facts).decode


def _first_leaf(group: BaseExceptionGroup[Misconfigured]) -> Misconfigured:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Misconfigured)  # noqa: S101 (the subgroup holds nothing else)
    return error


def collect_seldom() -> None:
    """Look for cycles after fifty thousand new containers, not seven hundred, and never in what start-up made.

    A batch makes some ten thousand, none of them in a cycle; looking for cycles among them cost a fifth of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


async def run(settings: Settings, *, until_drained: bool = False) -> None:
    """Run one worker process until SIGTERM or SIGINT; a second signal ends it at once."""
    app = App(settings, until_drained=until_drained)
    collect_seldom()
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 (we are in one)
    told_at: float | None = None

    def on_signal() -> None:
        nonlocal told_at
        if told_at is None:
            told_at = loop.time()
        elif loop.time() - told_at > _ONE_WISH:
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
