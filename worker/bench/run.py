"""The steps of a measurement, from services to the verdict.

Promises: everything that was started is ended and removed, however it ends; each stage is measured on its own and all
of them together; it is complete only if every message has its row and its confirmation.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from contracts.registry import families
from worker.bench import broker, database, machine
from worker.bench.accounts import account
from worker.bench.database import Answers, DatabaseAlone, DatabaseStage
from worker.bench.events import MIX, Item, make
from worker.bench.hearing import Hearing
from worker.bench.results import Results
from worker.bench.verdict import Figures, Verdict, judge
from worker.bench.whole import Backlog, Latency, Whole, workers
from worker.broker import topology
from worker.broker.connection import BrokerConnection, connect
from worker.demo.run import cancelled_by_sigterm, first_error
from worker.demo.terminal import Terminal
from worker.errors import WorkerError
from worker.logs import without_client_troubles
from worker.settings import Settings
from worker.store.database import Database
from worker.torture.ground import Ground, Wish, found
from worker.torture.scratch import Mark

BENCH = Mark("bench", "loads them and removes what it finds under its mark")

_LOW_RATE_SHARE = 1 / 6
_BACKLOG_SHARE = 1 / 10
"""Of the time; a backlog is made three times, published twice, consumed, stored, and done in full."""
_LOW_RATE = 100
_FEWEST, _MOST = 500, 100_000
_MOST_BYTES = 192 * 1024 * 1024
_SAMPLE = 100
_TRIAL = 1_000
_READING_ENDS = 600


@dataclass(frozen=True)
class Options:
    """What can be chosen. `messages`: of a backlog; else as many as the time allows."""

    seconds: float = 30
    messages: int | None = None
    processes: int = 1
    family: str = MIX
    wish: Wish = field(default_factory=lambda: Wish(mark=BENCH))


def bench(options: Options, terminal: Terminal) -> Results:
    """Do all of it.

    Raises SandboxError where no broker or database can be had, Misconfigured where the place may be live, Unavailable
    where a service or a worker is not there.
    """
    terminal.step("Looking for a RabbitMQ and a PostgreSQL to work in")
    with without_client_troubles(), contextlib.ExitStack() as closing:
        folder = closing.enter_context(
            tempfile.TemporaryDirectory(prefix="agent-persistence-bench-")
        )
        with terminal.busy():
            ground = closing.enter_context(found(options.wish, terminal.say))
        run = _Run(options, terminal, ground, Path(folder))
        try:
            return asyncio.run(run.go())
        except asyncio.CancelledError:  # SIGTERM
            raise KeyboardInterrupt from None
        except BaseExceptionGroup as error:
            first = first_error(error)
            if isinstance(first, WorkerError):
                raise first from error
            raise


class _Run:
    """One measurement, once broker and database are there."""

    def __init__(self, options: Options, terminal: Terminal, ground: Ground, folder: Path) -> None:
        self._options = options
        self._terminal = terminal
        self._ground = ground
        self._folder = folder
        self._settings = Settings.load(
            database_url=ground.database_url, amqp_url=ground.amqp_url, name="bench"
        )
        self._environment = {
            "DATABASE_URL": self._settings.database,
            "AMQP_URL": self._settings.broker,
            "WORKER_FAMILIES": "",
            "WORKER_LOG_LEVEL": "warning",
        }
        self._stored: list[UUID] = []
        self._problems: list[str] = []

    async def go(self) -> Results:
        """Look, measure the database, the broker, then all together; read the tables; judge."""
        async with cancelled_by_sigterm(), self._connected() as connection, self._opened() as data:
            await topology.apply(connection, topology.topology(families().values()))
            round_trip, answers = await self._look(connection, data)
            database_alone, items = await self._database()
            broker_alone = await self._broker(items)
            async with Hearing.open(connection) as hearing:
                latency, backlog, published = await self._whole(hearing, items)
                self._terminal.step("Accounting for every message")
                with self._terminal.busy():
                    accounts = await account(
                        data, connection, hearing, published, self._stored, self._problems
                    )
            return Results(
                family=self._options.family,
                processes=self._options.processes,
                body_bytes=round(sum(len(item.body) for item in items) / len(items)),
                cores=machine.cores(),
                services=self._ground.services,
                broker_round_trip=round_trip,
                answers=answers,
                database=database_alone,
                broker=broker_alone,
                latency=latency,
                backlog=backlog,
                verdict=self._judge(round_trip, answers, database_alone, broker_alone, backlog),
                accounts=accounts,
            )

    # --- places ---

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[BrokerConnection]:
        connection = await connect(self._settings.broker, name="bench")
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Database]:
        data = Database(self._settings.database, name="bench", statement_timeout=_READING_ENDS)
        try:
            yield data
        finally:
            await data.close()

    # --- steps ---

    async def _look(self, connection: BrokerConnection, data: Database) -> tuple[float, Answers]:
        self._terminal.step("How far away they are")
        with self._terminal.busy():
            return await broker.round_trip(connection), await database.answers(data)

    async def _database(self) -> tuple[DatabaseAlone, list[Item]]:
        """The database alone; how fast it is says how many messages there is time for."""
        options = self._options
        self._terminal.step("The database alone: transactions of messages that are decoded already")
        with self._terminal.busy():
            stage = DatabaseStage.open(self._environment, options.family, options.processes)
            async with stage as persisting:
                self._stored += await persisting.warm_up()
                count = options.messages or await self._count(persisting)
                measured = await persisting.run(count)
                self._stored += measured.ids
        self._terminal.say(f"{count:,} messages: {measured.rate:,.0f} a second")
        return measured, await asyncio.to_thread(make, options.family, count)

    async def _broker(self, items: list[Item]) -> broker.BrokerAlone:
        self._terminal.step("The broker alone: publishing, then consuming without storing anything")
        with self._terminal.busy():
            measured = await broker.alone(self._settings, items, self._options.processes)
        self._terminal.say(
            f"published {measured.publish_rate:,.0f}, consumed {measured.rate:,.0f} a second"
        )
        return measured

    async def _whole(
        self, hearing: Hearing, items: list[Item]
    ) -> tuple[Latency, Backlog, list[UUID]]:
        options = self._options
        seconds = _LOW_RATE_SHARE * options.seconds
        few = make(options.family, max(_SAMPLE, round(_LOW_RATE * seconds)), seed=2)
        started = workers(self._environment, self._folder, options.processes, self._problems)
        self._terminal.step(f"All together: {_processes(options.processes)}")
        with self._terminal.busy():
            async with started as running:
                whole = Whole(self._settings, running, hearing)
                latency = await whole.latency(few, _LOW_RATE)
                backlog = await whole.backlog(items)
        self._terminal.say(f"{backlog.rate:,.0f} messages a second, confirmed")
        return latency, backlog, [item.id for item in (*few, *items)]

    def _judge(
        self,
        round_trip: float,
        answers: Answers,
        database_alone: DatabaseAlone,
        broker_alone: broker.BrokerAlone,
        backlog: Backlog,
    ) -> Verdict:
        return judge(
            Figures(
                rate=backlog.rate,
                broker_rate=broker_alone.rate,
                database_rate=database_alone.rate,
                client_busy=database_alone.client_busy,
                processes=self._options.processes,
                messages=backlog.confirmed,
                worker_cpu=backlog.worker_cpu,
                cores=machine.cores(),
                machine_busy=backlog.machine_busy,
                transactions_per_second=database_alone.transactions / database_alone.seconds,
                in_flight=database_alone.in_flight,
                flush=answers.flush,
                database_round_trip=answers.round_trip,
                broker_round_trip=round_trip,
            )
        )

    # --- how much ---

    async def _count(self, stage: DatabaseStage) -> int:
        """How many messages a part has time, and this process memory, for, by a trial of the database."""
        trial = await stage.run(_TRIAL * self._options.processes)
        self._stored += trial.ids
        sample = make(self._options.family, _SAMPLE)
        size = sum(len(item.body) for item in sample) / len(sample)
        most = min(_MOST, _MOST_BYTES / size)
        return round(max(_FEWEST, min(most, trial.rate * _BACKLOG_SHARE * self._options.seconds)))


def _processes(count: int) -> str:
    return f"{count} worker processes" if count > 1 else "1 worker process"
