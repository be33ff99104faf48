"""Eight workers, agents with optimistic locking and readers on the same few rows: no update is lost, nobody goes back in time."""

import asyncio
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from support.broker import client
from support.events import created, logged
from support.ledger import Ledger
from support.traffic import elapse
from support.verdicts import everything_is_accounted_for, outbox_is_empty
from support.workers import running_worker, worker_process

from contracts import Event
from contracts.identifiers import uuid7
from contracts.task_lifecycle import TaskFailed, TaskStarted
from worker.repositories.errors import Stale
from worker.repositories.groups.tasks import TaskRepository
from worker.repositories.scope import Scope
from worker.repositories.service import DatabaseService

WORKERS, TASKS, UPDATERS, READERS = 8, 12, 4, 4
LENGTHS = [
    pytest.param(3, running_worker, id="three seconds"),
    pytest.param(
        60, worker_process, id="a minute", marks=[pytest.mark.torture, pytest.mark.timeout(300)]
    ),
]
SCOPE = Scope("default")
START = datetime(2026, 11, 22, 10, tzinfo=UTC)


@dataclass
class Seen:
    """What was done beside the messages."""

    updates: list[Event] = field(default_factory=list)
    refused: list[tuple[Event, Stale]] = field(default_factory=list)
    reads: int = 0


def started(task: UUID) -> Event:
    """One of the events that many send for one task, at one of few times."""
    content = TaskStarted(task_id=task, agent_id=f"agent {random.randrange(9)}", attempt=1)
    when = START + timedelta(seconds=random.randrange(30))
    return content.event(source="/agents/tester", time=when)


def round_of(tasks: list[UUID]) -> list[Event]:
    """Events of every task, in any order."""
    events = []
    for task in tasks:
        failed = TaskFailed(task_id=task, error_message="x", attempt=1)
        events += [started(task), logged(task), failed.event(source="/agents/tester")]
    random.shuffle(events)
    return events


async def publish(agent, ledger: Ledger, tasks: list[UUID], over: asyncio.Event) -> None:
    """Rounds of messages, some of them twice, until it is over."""
    while not over.is_set():
        events = round_of(tasks)
        await ledger.publish(agent, events)
        await agent.publish(*random.sample(events, 5))
        await elapse(0.05)


async def update(service: DatabaseService, seen: Seen, tasks: list[UUID], over: asyncio.Event):
    """Read a task, then change it if nobody has meanwhile."""
    while not over.is_set():
        task = random.choice(tasks)
        async with service.reading(SCOPE) as work:
            found = await work.repository(TaskRepository).require(task)
        event = started(task)
        try:
            async with service.transaction(SCOPE) as work:
                done = await work.repository(TaskRepository).update(
                    event, expected_version=found["version"]
                )
            assert done.row["version"] == found["version"] + 1
            seen.updates.append(event)
        except Stale as stale:
            seen.refused.append((event, stale))


async def read(service: DatabaseService, seen: Seen, tasks: list[UUID], over: asyncio.Event):
    """Versions and histories grow, and a task has at least the events that its version counts."""
    versions = dict.fromkeys(tasks, 0)
    while not over.is_set():
        task = random.choice(tasks)
        async with service.reading(SCOPE) as work:
            repository = work.repository(TaskRepository)
            found = (await repository.require(task))["version"]
            history = await repository.history(task, limit=500)
        assert found >= versions[task]
        assert len(history) >= min(found, 500)
        versions[task] = found
        seen.reads += 1


@pytest.mark.parametrize(("seconds", "work"), LENGTHS)
async def test_eight_workers_on_the_same_rows_lose_no_update(settings, seconds, work):
    """Each event counts once in its row's version, a stale update leaves nothing, and no deadlock needs a person."""
    ledger, seen, over = Ledger(), Seen(), asyncio.Event()
    tasks = [uuid7() for _ in range(TASKS)]
    here = settings.model_copy(update={"outbox_sweep_after": 1.0})
    async with (
        DatabaseService(here) as service,
        client(settings.broker) as agent,
        AsyncExitStack() as workers,
    ):
        for _ in range(WORKERS):
            await workers.enter_async_context(work(here))
        await ledger.publish(agent, [created(task) for task in tasks])
        await ledger.hear(agent)
        async with asyncio.TaskGroup() as group:
            group.create_task(publish(agent, ledger, tasks, over))
            for _ in range(UPDATERS):
                group.create_task(update(service, seen, tasks, over))
            for _ in range(READERS):
                group.create_task(read(service, seen, tasks, over))
            await elapse(seconds)
            over.set()
        ledger.published += seen.updates
        await ledger.hear(agent)
        await outbox_is_empty(settings)
    told = f"{len(ledger.published)} events, {len(seen.updates)} updates, {len(seen.refused)} stale, {seen.reads} reads"
    print(told)  # noqa: T201 (pytest shows it where the test fails)
    assert seen.updates
    assert seen.refused
    assert all(stale.found > stale.expected for _, stale in seen.refused)
    await everything_is_accounted_for(ledger, settings)
