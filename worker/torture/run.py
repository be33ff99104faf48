"""The steps of a torture run, from services to the verdict.

Promises: everything that was started is ended and removed, however the run ends; it is balanced only if the tables,
the dead letters, the confirmations and the replies agree with what the broker confirmed to its publishers.
"""

import asyncio
import contextlib
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from pathlib import Path

from contracts.envelope import Event
from contracts.registry import families
from worker.broker import topology
from worker.broker.connection import BrokerConnection, connect
from worker.demo import recorded
from worker.demo.run import cancelled_by_sigterm, first_error
from worker.demo.traffic import until
from worker.errors import Unavailable, WorkerError
from worker.logs import without_client_troubles
from worker.sandbox import SandboxError
from worker.settings import Settings
from worker.store.database import Database
from worker.torture import audit, hearing
from worker.torture.conductor import Conductor
from worker.torture.faults import FAULTS
from worker.torture.ground import Ground, Wish, found
from worker.torture.ledger import Ledger
from worker.torture.leftovers import charge_what_waits
from worker.torture.results import Results
from worker.torture.show import Screen
from worker.torture.stage import Stage
from worker.torture.traffic import Load, Traffic
from worker.torture.verdict import Verdict, judge

_PUBLISHING_ENDS = 300
"""Seconds after the last fault within which the broker must have confirmed everything."""
_SETTLING_ENDS = 120
"""Seconds without any news after which nothing more is expected."""

_READING_ENDS = 1_800
"""Seconds that a statement over all rows may take."""


@dataclass(frozen=True)
class Options:
    """What can be chosen."""

    seconds: float
    seed: int
    workers: int = 2
    agents: int = 8
    rate: float | None = None
    window: int = 8_000
    every: float = 5
    faults: Collection[str] = field(default_factory=lambda: tuple(FAULTS))
    recorded: Path | None = None
    wish: Wish = field(default_factory=Wish)

    @property
    def pace_of_faults(self) -> str:
        """How often something is broken, in words."""
        return f"a fault every {self.every:g} s" if self.faults else "no faults"


def torture(options: Options, screen: Screen) -> Results:
    """Do all of it.

    Raises SandboxError where no broker or database can be had, Misconfigured for a file that holds no recorded runs,
    Unavailable where workers cannot be started.
    """
    events = list(recorded.events(recorded.read(options.recorded))) if options.recorded else []
    screen.introduce(options.seed)
    screen.step("Looking for a RabbitMQ and a PostgreSQL to work in")
    with without_client_troubles(), contextlib.ExitStack() as closing:
        folder = closing.enter_context(
            tempfile.TemporaryDirectory(prefix="agent-persistence-torture-")
        )
        with screen.busy():
            ground = closing.enter_context(found(options.wish, screen.say))
        return perform(options, screen, ground, events, Path(folder))


def perform(
    options: Options, screen: Screen, ground: Ground, events: list[Event], folder: Path
) -> Results:
    """The run itself, in a scratch database that is migrated and a scratch virtual host that is empty."""
    run = _Run(options, screen, ground, events, folder)
    try:
        return asyncio.run(run.go())
    except asyncio.CancelledError:  # SIGTERM
        raise KeyboardInterrupt from None
    except BaseExceptionGroup as error:
        first = first_error(error)
        if isinstance(first, (WorkerError, SandboxError)):
            raise Unavailable(str(first)) from error
        raise


class _Run:
    """One run, once broker and database are there."""

    def __init__(
        self,
        options: Options,
        screen: Screen,
        ground: Ground,
        events: list[Event],
        folder: Path,
    ) -> None:
        self._options = options
        self._screen = screen
        self._ground = ground
        self._folder = folder
        self._settings = Settings.load(
            database_url=ground.database_url, amqp_url=ground.amqp_url, name="torture"
        )
        self._ledger = Ledger()
        self._verdict = Verdict()
        self._hearing = hearing.Hearing(self._settings.broker, self._ledger)
        self._load = Load(
            options.seconds, options.agents, options.seed, options.rate, options.window, events
        )
        self._begin = time.monotonic()

    async def go(self) -> Results:
        """Set up, publish and break, let it settle, read the tables, judge."""
        async with cancelled_by_sigterm(), self._topology():
            stage = Stage(
                self._ground,
                self._settings,
                self._options.workers,
                self._folder,
                self._verdict.charge,
            )
            async with stage:
                conductor = self._conductor(stage)
                await self._start(stage)
                seconds = await self._publish_and_break(stage, conductor)
                await self._drain(stage)
                rows, letters = await self._judge()
            return Results(
                options=self._options,
                services=self._ground.services,
                ledger=self._ledger,
                verdict=self._verdict,
                faults=dict(+conductor.faults),
                history=list(conductor.history),
                rows=rows,
                letters=letters,
                stall=self._hearing.longest_silence,
                seconds=seconds,
                starts=sum(place.starts for place in stage.places),
                largest_bytes=max(place.largest_bytes for place in stage.places),
                own_bytes=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
                recorded=len(self._load.recorded),
            )

    @contextlib.asynccontextmanager
    async def _topology(self) -> AsyncIterator[None]:
        """Exchanges and queues; those to hear by are removed at the end."""
        async with self._connected() as connection:
            await topology.apply(connection, topology.topology(families().values()))
            await hearing.declare(connection)
        yield
        async with self._connected() as connection:
            await hearing.delete(connection)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[BrokerConnection]:
        connection = await connect(self._settings.broker, name=self._settings.name)
        try:
            yield connection
        finally:
            await connection.close()

    def _conductor(self, stage: Stage) -> Conductor:
        """Makes the chosen faults, as far as they can be made here."""
        chosen = [
            FAULTS[name] for name in self._options.faults if FAULTS[name].target in stage.targets
        ]
        left_out = sorted(set(self._options.faults) - {fault.name for fault in chosen})
        if left_out:
            self._screen.say(f"faults that cannot be made here: {', '.join(left_out)}")
        return Conductor(stage, chosen, self._options.seed, self._options.every)

    async def _start(self, stage: Stage) -> None:
        self._screen.step(f"Starting {len(stage.places)} workers")
        with self._screen.busy():
            await asyncio.gather(*(place.start() for place in stage.places))

    async def _publish_and_break(self, stage: Stage, conductor: Conductor) -> float:
        """Publish under faults, and wait until all is told of; how long it took."""
        seconds = self._options.seconds
        self._screen.step(f"Publishing for {seconds:g} s, {self._options.pace_of_faults}")
        traffic = Traffic(self._load, self._settings.broker, self._ledger)
        begin = time.monotonic()
        async with (
            self._screen.live(self._ledger, self._hearing, conductor, stage),
            asyncio.TaskGroup() as tasks,
        ):
            listening = [
                tasks.create_task(self._hearing.run()),
                tasks.create_task(self._hearing.watch()),
            ]
            flowing = tasks.create_task(traffic.flow())
            await conductor.run(seconds)
            await self._all_published(flowing)
            await self._all_told()
            for task in listening:
                task.cancel()
        return time.monotonic() - begin

    async def _all_published(self, flowing: "asyncio.Task[None]") -> None:
        await asyncio.wait([flowing], timeout=_PUBLISHING_ENDS)
        if not flowing.done():
            text = f"publishers are not done {_PUBLISHING_ENDS} s after the last fault"
            self._verdict.charge("stuck", text)
            flowing.cancel()

    async def _all_told(self) -> None:
        """Wait until workers have told of everything, or nothing more comes."""
        await until(lambda: not self._ledger.under_way or self._hearing.silence > _SETTLING_ENDS)

    async def _drain(self, stage: Stage) -> None:
        """End the workers in an orderly way, and let a last one empty what is left."""
        self._screen.step("Ending the workers, and draining the queues with a last one")
        with self._screen.busy():
            await asyncio.gather(*(place.terminate() for place in stage.places))
            await stage.last.drain()
            await charge_what_waits(self._settings, self._verdict)
            await self._hear_the_rest()

    async def _hear_the_rest(self) -> None:
        """What the last worker had to confirm."""
        listening = asyncio.create_task(self._hearing.run())
        try:
            await hearing.until_empty(self._settings.broker)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _judge(self) -> tuple[dict[str, int], dict[str, int]]:
        self._screen.step("Reading the tables")
        database = Database(
            self._settings.database, name=self._settings.name, statement_timeout=_READING_ENDS
        )
        try:
            with self._screen.busy():
                rows = await audit.read_tables(database, self._ledger, self._verdict)
                letters = await audit.letters_by_reason(database)
                await asyncio.to_thread(judge, self._ledger, self._verdict)
        finally:
            await database.close()
        return rows, dict(letters)
