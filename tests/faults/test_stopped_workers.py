"""A worker that is stopped (SIGSTOP) while others do its work, and wakes up: it settles nothing that is not its own."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

import pytest
from support.broker import Client, client
from support.events import created, logged
from support.ledger import Ledger
from support.letters import broker
from support.locks import foreign_log, holding, waiting
from support.tables import count, rows
from support.waiting import until
from support.workers import Process, drain, running_worker, worker_process

from contracts import Event
from contracts.identifiers import uuid7
from contracts.task_lifecycle import TaskCompleted, TaskStarted
from worker.broker import topology

LOGS = topology.queue_name("execution-log")


def with_heartbeat(settings, seconds: int):
    """The same settings; RabbitMQ gives a silent connection up after two to three of these seconds."""
    changed = settings.model_copy(
        update={
            "amqp_url": type(settings.amqp_url)(f"{settings.broker}?heartbeat={seconds}"),
            "outbox_sweep_after": 1.0,
        }
    )
    changed.__dict__.pop("broker", None)  # the address that it remembers
    return changed


async def given_up(settings, queue: str) -> None:
    """Wait until nobody consumes a queue any more: the broker has closed the connection of the stopped worker."""
    async with broker(settings) as connection:

        async def nobody() -> bool:
            return (await topology.queue_counts(connection, queue) or (0, 1))[1] == 0

        await until(nobody, seconds=200)


@pytest.mark.parametrize(
    "heartbeat", [1, pytest.param(30, marks=[pytest.mark.torture, pytest.mark.timeout(400)])]
)
async def test_a_worker_that_wakes_up_settles_nothing_that_others_have_done(heartbeat, settings):
    """Stopped in the middle of a transaction: another does its work, then it wakes, and every message is there once."""
    ledger = Ledger()
    short = with_heartbeat(settings, heartbeat)
    async with client(settings.broker) as agent:
        task, events = await publish_logs(short, ledger, agent)
        async with stopped_in_a_transaction(short, task, events[-1]) as stopped:
            await given_up(short, LOGS)
            async with running_worker(short):
                await waiting(settings.database)  # the other has them all, and finds keys taken
                stopped.signal(signal.SIGCONT)
                await ledger.hear(agent)
                await ledger.publish(agent, [logged(task) for _ in range(20)])
                await ledger.hear(agent)
            stopped.signal(signal.SIGTERM)
            assert await stopped.ended() == 0
    await drain(short)
    await ledger.balance(settings.database)


async def test_a_worker_that_never_wakes_up_keeps_its_locks_for_so_long_only(settings):
    """As a machine that is gone without a word: the server ends its transaction, and others do its work."""
    ledger = Ledger()
    short = with_heartbeat(settings, 1)
    async with client(settings.broker) as agent:
        task, events = await publish_logs(short, ledger, agent)
        async with (
            stopped_in_a_transaction(short, task, events[-1], WORKER_STATEMENT_TIMEOUT="1.5"),
            running_worker(short),
        ):
            await ledger.hear(agent)
    await drain(short)
    await ledger.balance(settings.database)


async def publish_logs(settings, ledger: Ledger, agent: Client) -> tuple[UUID, list[Event]]:
    """A task that is stored, and sixty logs of it that wait."""
    task = uuid7()
    await ledger.publish(agent, [created(task)])
    await drain(settings)
    events = [logged(task) for _ in range(60)]
    await ledger.publish(agent, events)
    return task, events


@asynccontextmanager
async def stopped_in_a_transaction(
    settings, task: UUID, last: Event, **extra: str
) -> AsyncIterator[Process]:
    """A worker stopped between two statements of a transaction: what it has inserted is locked, up to the last key."""
    log_id = UUID(last.data["log_id"])
    async with worker_process(settings, WORKER_NAME="test-worker-stopped", **extra) as stopped:
        async with holding(settings.database, foreign_log(log_id, task)):
            await waiting(settings.database)
            stopped.signal(signal.SIGSTOP)
        yield stopped


async def test_workers_that_are_stopped_and_woken_at_random_lose_and_double_nothing(settings):
    """Two of three workers stop again and again for longer than the broker waits, wherever they happen to be."""
    ledger = Ledger()
    short = with_heartbeat(settings, 1)
    tasks = [uuid7() for _ in range(10)]

    def some() -> list:
        task = random.choice(tasks)
        changes = (TaskStarted(task_id=task), TaskCompleted(task_id=task, output={}))
        return [
            *(logged(random.choice(tasks)) for _ in range(20)),
            *(change.event(source="/agents/tester") for change in changes),
        ]

    async with client(settings.broker) as agent, AsyncExitStack() as stack:
        await ledger.publish(agent, [created(task) for task in tasks])
        workers = [
            await stack.enter_async_context(worker_process(short, WORKER_BATCH_MESSAGES="20"))
            for _ in range(3)
        ]
        await ledger.hear(agent)
        await until(lambda: _consumers(settings, 3, at_least=True))  # all of them have begun
        for round_ in range(3):
            publishing = asyncio.create_task(ledger.publish(agent, [*some(), *some(), *some()]))
            stopped = random.sample(workers, 2)
            for worker in stopped:
                worker.signal(signal.SIGSTOP)
            await publishing
            if round_ % 2:
                await until(lambda: _consumers(settings, 1), seconds=60)
            for worker in stopped:
                worker.signal(signal.SIGCONT)
            await ledger.hear(agent)
        for worker in workers:
            worker.signal(signal.SIGTERM)
        for worker in workers:
            assert await worker.ended() == 0
    await drain(short)
    await ledger.balance(settings.database)
    assert await rows(settings.database, "SELECT 1 FROM dead_letters") == []
    assert await count(settings.database, "tasks") == len(tasks)


async def _consumers(settings, number: int, *, at_least: bool = False) -> bool:
    async with broker(settings) as connection:
        found = (await topology.queue_counts(connection, LOGS) or (0, 0))[1]
        return found >= number if at_least else found <= number
