"""An attempt to handle a suspect alone that ends for another reason is not held against the message."""

import asyncio

import pytest
from support.broker import client
from support.events import delivery, logged
from support.letters import opened
from support.tables import count, rows
from support.workers import drain

from worker import attempts
from worker.app import App
from worker.attempts import Attempts
from worker.batch import Batcher
from worker.errors import Misconfigured
from worker.store import suspects


async def test_a_restart_loop_over_a_missing_grant_makes_no_dead_letter(settings, monkeypatch):
    """Six starts that each stop with Misconfigured; mended, all messages land."""
    # As if every delivery had been handed out often before: the first of a process is handled alone.
    monkeypatch.setattr(Batcher, "is_suspect", lambda _, batch: len(batch) == 1)
    monkeypatch.setattr(Batcher, "_share", lambda _, delivery: 1)
    await rows(settings.database, "ALTER TABLE outbox RENAME COLUMN payload TO gone")
    async with client(settings.broker) as agent:
        await agent.publish(*(logged() for _ in range(3)))
        for _ in range(6):
            with pytest.raises(Misconfigured):
                await drain(settings)
        assert (
            await count(settings.database, "suspects WHERE attempts > 0 OR ended_at IS NULL") == 0
        )
        await rows(settings.database, "ALTER TABLE outbox RENAME COLUMN gone TO payload")
        await drain(settings)
        assert len((await agent.confirmed(3))["persisted"]) == 3
    assert await count(settings.database, "dead_letters") == 0


async def test_a_relay_that_may_not_read_the_outbox_stops_the_worker_with_a_sentence(settings):
    """Whichever task finds it, what is missing ends the worker as Misconfigured, not as a group of exceptions."""
    await rows(settings.database, "ALTER TABLE outbox RENAME COLUMN payload TO gone")
    with pytest.raises(Misconfigured, match="payload"):
        await App(settings).run()


@pytest.fixture
def looks(monkeypatch):
    """How often too many attempts were looked at; no look waits."""
    seen = []
    begin = suspects.begin

    async def counted(*arguments):
        found = await begin(*arguments)
        seen.append(found)
        return found

    monkeypatch.setattr(suspects, "begin", counted)
    monkeypatch.setattr(attempts, "_LOOK_EVERY", 0.001)
    return seen


async def at_once(step):
    """A database that answers."""
    return await step()


async def test_attempts_that_never_end_are_deaths(settings, looks):
    """Three on record: the fourth looks five times more, sees that nothing changes, and is the fourth."""
    copy = delivery(logged(), family="execution-log")
    async with opened(settings) as database:
        assert [await suspects.begin(database, copy) for _ in range(3)] == [1, 2, 3]
        looks.clear()
        found = await Attempts(database).begin(copy, at_once, asyncio.Event())
    assert found == suspects.MOST_ATTEMPTS + 1
    assert len(looks) == 1 + 5 + 1


async def test_living_workers_with_a_copy_each_do_not_count_as_deaths(settings, looks):
    """Four copies of one body alone at once: while the fourth looks again, one ends; so it is the first."""
    copy = delivery(logged(), family="execution-log")
    async with opened(settings) as database:
        for _ in range(3):
            await suspects.begin(database, copy)
        looks.clear()

        async def until_one_ends(step):
            if len(looks) == 3:
                await suspects.end(database, copy)
            return await step()

        assert await Attempts(database).begin(copy, until_one_ends, asyncio.Event()) == 1
    assert len(looks) == 4


async def test_a_worker_that_stops_while_it_looks_leaves_the_count_as_it_is(settings, looks):
    """It gives the message back, and takes no death from the record."""
    copy = delivery(logged(), family="execution-log")
    stopping = asyncio.Event()
    stopping.set()
    async with opened(settings) as database:
        for _ in range(3):
            await suspects.begin(database, copy)
        assert await Attempts(database).begin(copy, at_once, stopping) is None
    assert await count(settings.database, "suspects WHERE attempts = 3 AND ended_at IS NULL") == 1


async def test_an_attempt_that_ended_is_kept_for_a_day_and_counts_no_more(settings):
    """Two attempts without an end are two; ended, the next one is the first; a day later the row is gone."""
    message, other = (delivery(logged(), family="execution-log") for _ in range(2))
    async with opened(settings) as database:
        assert [await suspects.begin(database, message) for _ in range(2)] == [1, 2]
        await suspects.end(database, message)
        [ended] = await rows(
            settings.database, "SELECT attempts, ended_at > started_at AS over FROM suspects"
        )
        assert ended == {"attempts": 0, "over": True}
        assert await suspects.begin(database, message) == 1
        assert await suspects.begin(database, message, [suspects.digest(message)]) == 1
        await suspects.end(database, message)
        await rows(settings.database, "UPDATE suspects SET ended_at = now() - interval '25 hours'")
        await suspects.begin(database, other)
    [left] = await rows(settings.database, "SELECT digest, ended_at FROM suspects")
    assert left == {"digest": suspects.digest(other), "ended_at": None}
