"""The steps of the demonstration, from an empty machine to a verdict.

Promises: everything that was started is ended and removed, however the demonstration ends; it says that all is well
only if the tables, the dead letters, the answers and the confirmations agree with what was published.
"""

import asyncio
import contextlib
import re
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.client import PublishingError
from contracts.confirmation import EXCHANGE as CONFIRMATIONS
from contracts.registry import families
from worker.broker import topology
from worker.broker.connection import BrokerConnection, connect
from worker.demo import recorded
from worker.demo.ledger import Findings, Hearing, Ledger, audit
from worker.demo.processes import Workers
from worker.demo.show import Screen
from worker.demo.traffic import Amount, Traffic, until
from worker.errors import Unavailable, WorkerError
from worker.logs import without_client_troubles
from worker.sandbox import Sandbox
from worker.settings import Settings
from worker.store.database import Database
from worker.store.migrations import upgrade

_MIDDLE = 0.4
_SETTLE_SECONDS = 20


@dataclass(frozen=True)
class Options:
    """What can be chosen."""

    seconds: float = 5
    agents: int = 5
    workers: int = 2
    keep: bool = False
    recorded: Path | None = None


def demonstrate(options: Options, screen: Screen) -> bool:
    """Do all of it; whether every message is accounted for.

    Raises SandboxError where no broker or database can be had, Misconfigured for a file that holds no recorded runs,
    Unavailable where a worker does not start.
    """
    runs = recorded.read(options.recorded) if options.recorded else []
    amount = Amount(options.agents, options.seconds, tuple(recorded.events(runs)))
    screen.introduce()
    screen.step("Starting a RabbitMQ and a PostgreSQL for this demonstration only")
    with (
        tempfile.TemporaryDirectory(prefix="agent-persistence-demo-") as folder,
        without_client_troubles(),
        contextlib.ExitStack() as open_services,
    ):
        with screen.busy():
            sandbox = open_services.enter_context(Sandbox(say=screen.say))
            upgrade(sandbox.database_url)
        demo = _Demo(options, screen, sandbox, amount, Path(folder))
        return _run(demo)


class _Demo:
    """One demonstration, once broker and database are there."""

    def __init__(
        self, options: Options, screen: Screen, sandbox: Sandbox, amount: Amount, folder: Path
    ) -> None:
        self._options = options
        self._screen = screen
        self._sandbox = sandbox
        self._amount = amount
        self._settings = Settings.load(
            database_url=sandbox.database_url, amqp_url=sandbox.amqp_url, name="demo"
        )
        self._ledger = Ledger()
        self._hearing = Hearing()
        environment = {
            "DATABASE_URL": sandbox.database_url,
            "AMQP_URL": sandbox.amqp_url,
            "WORKER_OUTBOX_SWEEP_AFTER": "1",  # what a killed worker had yet to confirm comes soon
        }
        self._workers = Workers(environment, folder)

    async def run(self) -> bool:
        """Set up, start workers, let messages flow, look whether all is well."""
        async with cancelled_by_sigterm(), self._connected() as connection:
            try:
                await topology.apply(connection, topology.topology(families().values()))
                self._screen.say("tables, exchanges and queues are made")
                await _listen(connection, self._hearing.take)
                await self._start_workers()
                await self._let_messages_flow(connection)
                findings = await self._findings()
                self._screen.results(self._ledger, self._hearing, findings)
                if self._options.keep:
                    await self._keep()
                else:
                    self._screen.farewell()
            finally:
                await self._workers.stop()
            return findings.balanced

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[BrokerConnection]:
        connection = await connect(self._settings.broker, name=self._settings.name)
        try:
            yield connection
        finally:
            await connection.close()

    async def _start_workers(self) -> None:
        number = self._options.workers
        self._screen.step(f"Starting {number} worker{'s' if number > 1 else ''}")
        with self._screen.busy():
            started = [await self._workers.start() for _ in range(number)]
            await asyncio.gather(*(worker.ready() for worker in started))
        for worker in started:
            self._screen.say(f"{worker.name} (process {worker.pid}) takes messages from the queues")

    async def _let_messages_flow(self, connection: BrokerConnection) -> None:
        """Publish, kill a worker in the middle, and wait for the last confirmation."""
        self._screen.step(f"{self._amount}: out of order, some of it twice, some of it wrong")
        traffic = Traffic(self._amount, self._settings.broker, self._ledger)
        begin = time.monotonic()
        async with self._screen.live(self._ledger, self._hearing, self._workers.all):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(traffic.flow(connection))
                tasks.create_task(self._kill_a_worker(traffic))
            await until(lambda: self._hearing.complete(self._ledger), seconds=_SETTLE_SECONDS)
        self._screen.say(f"all is answered after {time.monotonic() - begin:.1f} seconds")

    async def _kill_a_worker(self, traffic: Traffic) -> None:
        """In the middle, end the first worker as a power cut would, and start another."""
        await until(lambda: traffic.progress >= _MIDDLE)
        victim = self._workers.all[0]
        victim.kill()
        self._screen.say(
            f"{victim.name} (process {victim.pid}) is killed with kill -9, "
            f"{self._ledger.under_way:,} messages are under way"
        )
        replacement = await self._workers.start()
        await replacement.ready()
        self._screen.say(f"{replacement.name} (process {replacement.pid}) takes its place")

    async def _findings(self) -> Findings:
        database = Database(self._settings.database, name=self._settings.name)
        try:
            return await audit(database, self._ledger, self._hearing)
        finally:
            await database.close()

    async def _keep(self) -> None:
        """Leave everything running until Ctrl-C, and say how to look around."""
        worker = self._workers.all[-1]
        database, broker = self._sandbox.postgres.owned, self._sandbox.rabbitmq.owned
        self._screen.look_around(
            database_url=_shown(self._sandbox.database_url, ours=database).replace("+asyncpg", ""),
            amqp_url=_shown(self._sandbox.amqp_url, ours=broker),
            port=worker.port,
            log=worker.log,
        )
        with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C
            await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def cancelled_by_sigterm() -> AsyncIterator[None]:
    """End as Ctrl-C does, with everything tidied up."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 (we are in one)
    before = signal.getsignal(signal.SIGTERM)
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)


async def _listen(connection: BrokerConnection, take: Callable[[bytes], None]) -> None:
    """Hear every confirmation from now on, as long as the connection lasts."""
    channel = await connection.channel()
    queue = str((await channel.queue_declare(exclusive=True)).queue)

    async def on_message(message: Any) -> None:
        take(message.body)

    await channel.queue_bind(queue, CONFIRMATIONS, routing_key="#")
    await channel.basic_consume(queue, on_message, no_ack=True)


def _shown(url: str, *, ours: bool) -> str:
    """A URL to be copied; the password of a server that the sandbox did not start is nobody's business."""
    return url if ours else re.sub(r"(://[^:/@]*:)[^@/]*@", r"\1***@", url)


def _run(demo: _Demo) -> bool:
    """Run it, with one plain exception for whatever ends it."""
    try:
        return asyncio.run(demo.run())
    except asyncio.CancelledError:  # SIGTERM
        raise KeyboardInterrupt from None
    except (PublishingError, BaseExceptionGroup) as error:
        first = first_error(error)
        if isinstance(first, (WorkerError, PublishingError)):
            raise Unavailable(str(first)) from error
        raise


def first_error(error: BaseException) -> BaseException:
    """The first error of a group of groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
