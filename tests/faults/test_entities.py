"""Rows that many messages and many workers fold into: neither order, nor repetition, nor company changes them."""

import random
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from itertools import permutations

from support.broker import client
from support.events import created, logged
from support.ledger import Ledger
from support.tables import connected, contents, rows
from support.workers import drain, running_worker

from contracts import Event, EventData
from contracts.identifiers import uuid7
from contracts.task_lifecycle import (
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskRetrying,
    TaskStarted,
)
from contracts.trajectory import TrainingProgressed
from worker import telemetry

SOURCE = "/agents/tester"
START = datetime(2026, 11, 22, 10, tzinfo=UTC)


def at(minute: int, content: EventData, number: int = 0) -> Event:
    """An event of a minute; of two in one minute the larger number is the later one."""
    identity = uuid7(1_700_000_000_000 + number)
    return content.event(source=SOURCE, id=identity, time=START + timedelta(minutes=minute))


async def every_order(settings, make, show: str, wanted: dict) -> None:
    """Publish each order of some events as an entity of its own, each event in a transaction of its own, some twice."""
    ledger = Ledger()
    single = settings.model_copy(update={"batch_messages": 1, "transactions": 1})
    async with client(settings.broker) as agent, running_worker(single):
        keys = []
        for order in permutations(range(len(make(uuid7())))):
            key = uuid7()
            events = make(key)
            keys.append(key)
            await ledger.publish(agent, [events[place] for place in order])
            await agent.publish(events[order[0]])
        await ledger.hear(agent)
    found = await rows(settings.database, show, keys)
    assert len(found) == len(keys)
    assert all(row == wanted for row in found), found
    await ledger.balance(settings.database)


async def test_each_column_has_a_clock_of_its_own(settings):
    """Column A at minute 1, B at 3, A at 2: A is that of minute 2 and B that of 3, in each of the six orders."""

    def make(job):
        return [
            at(1, TrainingProgressed(job_id=job, current_iteration=1, cost_usd=1.0)),
            at(3, TrainingProgressed(job_id=job, current_iteration=3)),
            at(2, TrainingProgressed(job_id=job, current_iteration=2, cost_usd=2.0)),
        ]

    show = "SELECT current_iteration, cost_usd::float, version FROM training_jobs WHERE job_id = ANY($1)"
    await every_order(settings, make, show, {"current_iteration": 3, "cost_usd": 2.0, "version": 3})


async def test_of_two_at_the_same_time_the_larger_id_wins_always(settings):
    """Equal timestamps decide nothing by order of arrival."""

    def make(task):
        return [
            at(1, TaskStarted(task_id=task, agent_id=f"agent {number}"), number)
            for number in (1, 2, 3)
        ]

    show = "SELECT agent_id, version FROM tasks WHERE task_id = ANY($1)"
    await every_order(settings, make, show, {"agent_id": "agent 3", "version": 3})


async def test_cancelled_by_someone_who_does_not_know_the_attempt_is_cancelled(settings):
    """Failed, retried, then cancelled without an attempt, and completed late by the old attempt: cancelled in every order."""

    def make(task):
        return [
            at(1, TaskFailed(task_id=task, error_message="disk full", attempt=1)),
            at(2, TaskRetrying(task_id=task, attempt=2)),
            at(3, TaskCancelled(task_id=task)),
            at(4, TaskCompleted(task_id=task, output={"late": True}, attempt=1)),
        ]

    show = "SELECT status, attempt, retry_count, error_message, output, version FROM tasks WHERE task_id = ANY($1)"
    wanted = {
        "status": "cancelled", "attempt": 2, "retry_count": 1, "error_message": None, "output": None, "version": 4,
    }  # fmt: skip
    await every_order(settings, make, show, wanted)


def lives(tasks: int) -> list[Event]:
    """Tasks with parents, children and logs, and jobs; every message once."""
    events: list[Event] = []
    ids = [uuid7() for _ in range(tasks)]
    for place, task in enumerate(ids):
        events += [logged(task), logged(task)]
        events.append(created(task, parent_task_id=ids[(place * 7 + 1) % tasks] if place else None))
        events += [
            at(1, TaskStarted(task_id=task, agent_id="a", attempt=1), random.randrange(10**6)),
            at(1, TaskFailed(task_id=task, error_message="x", attempt=1), random.randrange(10**6)),
            at(2, TaskStarted(task_id=task, agent_id="b", attempt=2), random.randrange(10**6)),
        ]
    job = uuid7()
    events += [
        at(number, TrainingProgressed(job_id=job, current_iteration=number), number)
        for number in range(20)
    ]
    return events


async def test_children_before_parents_under_five_workers_give_the_rows_of_one(settings):
    """Shuffled and half of it twice, over five workers with small batches: the tables of one worker that had it in order."""
    events = lives(tasks=15)
    ledger = Ledger()
    async with client(settings.broker) as agent:
        await ledger.publish(agent, events)
        await drain(settings)
        await ledger.hear(agent)
        await ledger.balance(settings.database)
        alone = await contents(settings.database)
        await rows(
            settings.database, "TRUNCATE tasks, training_jobs, lifecycle_events, outbox CASCADE"
        )
        small = settings.model_copy(update={"batch_messages": 7})
        copies = random.sample(events, len(events) // 2)
        shuffled = random.sample([*events, *copies], len(events) + len(copies))
        again = Ledger(published=events)
        async with AsyncExitStack() as stack:
            for _ in range(5):
                await stack.enter_async_context(running_worker(small))
            await agent.publish(*shuffled)
            heard = await agent.confirmed(len(shuffled))
            while agent.confirmations.qsize():
                await agent.confirmed(1)
    assert {item["id"] for item in heard["persisted"]} == {str(event.id) for event in events}
    assert await contents(settings.database) == alone
    await again.balance(settings.database)


async def test_two_workers_with_the_same_tasks_in_opposite_orders_never_wait_in_a_circle(settings):
    """Forty rounds of two batches at once, each with every task, forwards and backwards: no deadlock, all folded once."""
    ledger = Ledger()
    tasks = [uuid7() for _ in range(30)]
    unavailable = telemetry.transactions.labels("task-lifecycle", "unavailable")._value
    before = unavailable.get()
    one = settings.model_copy(update={"transactions": 1, "prefetch": 1})
    async with client(settings.broker) as agent, running_worker(one), running_worker(one):
        for number in range(40):
            for order in (tasks, tasks[::-1]):
                changes = [
                    at(
                        number,
                        TaskStarted(task_id=task, agent_id=f"{number}"),
                        number * 1000 + place,
                    )
                    for place, task in enumerate(order)
                ]
                await ledger.publish_batch(agent, changes, "task.started")
        await ledger.hear(agent)
    assert unavailable.get() == before, "a transaction was a deadlock's victim"
    found = await rows(settings.database, "SELECT DISTINCT version, agent_id FROM tasks")
    assert found == [{"version": 80, "agent_id": "39"}]
    await ledger.balance(settings.database)


async def test_a_batch_that_is_tried_again_doubles_no_good_row_and_no_fold(settings):
    """Whole batches that fail before their commit, again and again, beside refused rows: each message counts once."""
    ledger = Ledger()
    faulty = """
    CREATE SEQUENCE attempts;
    CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('attempts') % 3 <> 0 THEN RAISE EXCEPTION USING ERRCODE = '40P01'; END IF;
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON outbox DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION fail();
    """
    async with connected(settings.database) as session:
        await session.execute(faulty)
    quick = settings.model_copy(update={"retry_longest": 0.1, "batch_messages": 20})
    async with client(settings.broker) as agent, running_worker(quick):
        task = uuid7()
        for number in range(5):
            await ledger.publish(agent, [created(), *(logged(task) for _ in range(10))])
            await ledger.publish_batch(agent, [created() for _ in range(10)], "task.created")
            await ledger.publish_bad(agent, b'{"n": %d}' % number, "invalid", "execution.logged")
            await ledger.publish(
                agent, [at(number, TaskStarted(task_id=task, agent_id=str(number)), number)]
            )
        await ledger.hear(agent)
    await ledger.balance(settings.database)
