"""The same messages in any order, duplicated and cut into any transactions, give the same tables."""

import random

from hypothesis import HealthCheck, given, seed
from hypothesis import settings as hypothesis_settings
from support.events import created, decoded, logged
from support.lives import lives
from support.tables import contents, empty, rows
from support.workflow_lives import workflow_lives

from contracts import trajectory
from contracts.identifiers import uuid7
from worker.families import plan
from worker.message import Accepted
from worker.store.database import Database
from worker.store.persist import Persister
from worker.store.writer import Writer


async def store(persister: Persister, messages: list, random_: random.Random) -> list:
    """Commit messages in transactions of random size; returns all outcomes."""
    outcomes = []
    rest = list(messages)
    while rest:
        size = random_.randint(1, len(rest))
        batch, rest = rest[:size], rest[size:]
        outcomes += (await persister.persist(batch)).outcomes
    return outcomes


def make_persister(database: Database) -> Persister:
    return Persister(database, Writer(plan()), "task-lifecycle", "agent.replies.*")


def longest_of(strategy) -> list:
    """The longest of a dozen lists of events."""
    found: list = []

    @seed(20261122)
    @hypothesis_settings(max_examples=12, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def collect(events) -> None:
        found.append(events)

    collect()
    return max(found, key=len)


def example_lives() -> list:
    """Events of a few tasks, jobs and runs, from hypothesis, and children that come before their parents."""
    longest = [*longest_of(lives(most=40)), *longest_of(workflow_lives(most=60))]
    task_id, job_id = uuid7(), uuid7()
    children = [logged(task_id) for _ in range(5)]
    runs = [
        trajectory.TrajectoryRecorded(
            job_id=job_id, agent_id="a", query="q", reward=1.0, trajectory_id=uuid7()
        ).event(source="/agents/tester")
        for _ in range(5)
    ]
    return [*longest, *children, created(task_id, parent_task_id=uuid7()), *runs]


async def test_fifty_orders_of_the_same_messages_give_the_same_tables(database_url):
    """Shuffled, duplicated, re-shuffled and cut at random: every table has the same hash, fifty times."""
    database = Database(database_url, name="test")
    persister = make_persister(database)
    events = example_lives()
    hashes = set()
    for number in range(50):
        random_ = random.Random(number)
        messages = decoded(*events, *random_.sample(events, len(events) // 2))
        random_.shuffle(messages)
        await empty(database_url)
        outcomes = await store(persister, messages, random_)
        assert all(isinstance(outcome, Accepted) for outcome in outcomes)
        hashes.add(tuple(sorted((await contents(database_url)).items())))
    await database.close()
    assert len(hashes) == 1, "two orders gave two results"


async def test_a_second_time_everything_is_a_duplicate_and_nothing_changes(database_url):
    """Publishing all of it again writes nothing."""
    database = Database(database_url, name="test")
    persister = make_persister(database)
    events = example_lives()
    first = await persister.persist(decoded(*events))
    before = await contents(database_url)
    second = await persister.persist(decoded(*events))
    await database.close()
    assert {outcome.outcome for outcome in first.outcomes} == {"persisted"}
    assert {outcome.outcome for outcome in second.outcomes} == {"duplicate"}
    assert await contents(database_url) == before


async def test_two_workers_with_the_same_facts_in_opposite_orders_do_not_deadlock(database_url):
    """Keys are sorted before they are written: both commit, and the slower one finds duplicates."""
    import asyncio

    database = Database(database_url, name="test")
    task_id = (
        uuid7()
    )  # of one task that is there: else its placeholder would keep one worker from the other
    await make_persister(database).persist(decoded(created(task_id)))
    for _ in range(3):
        events = [logged(task_id) for _ in range(400)]
        halves = decoded(*events), decoded(*reversed(events))
        done = await asyncio.gather(*(make_persister(database).persist(half) for half in halves))
        outcomes = [outcome.outcome for committed in done for outcome in committed.outcomes]
        assert outcomes.count("persisted") == outcomes.count("duplicate") == 400
    await database.close()


async def test_rows_are_written_in_the_order_of_their_keys(database_url):
    """Whatever order they arrive in: two workers then lock in one order, and cannot deadlock."""
    database = Database(database_url, name="test")
    events = [*(logged() for _ in range(50)), *(created() for _ in range(50))]
    random.Random(1).shuffle(events)
    await make_persister(database).persist(decoded(*events))
    await database.close()
    for table, key in (
        ("execution_logs", "log_id"),
        ("lifecycle_events", "event_id"),
        ("tasks", "task_id"),
    ):
        written = await rows(
            database_url, f"SELECT {key} AS key FROM {table} ORDER BY tableoid, ctid"
        )
        keys = [row["key"] for row in written]
        assert keys == sorted(keys), table


async def test_two_workers_folding_the_same_entities_at_once_lose_nothing(database_url):
    """Two persisters with opposite orders side by side end in the tables of one that ran alone."""
    import asyncio

    database = Database(database_url, name="test")
    events = example_lives()
    await make_persister(database).persist(decoded(*events))
    alone = await contents(database_url)
    for number in range(5):
        await empty(database_url)
        random_ = random.Random(number)
        halves = decoded(*events), decoded(*reversed(events))
        await asyncio.gather(*(store(make_persister(database), half, random_) for half in halves))
        assert await contents(database_url) == alone
    await database.close()
