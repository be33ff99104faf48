"""What a stored message is called when it comes again."""

import asyncio
from uuid import UUID

import orjson
import pytest
from support.events import created, decoded, logged
from support.locks import holding, waiting
from support.tables import connected, count, rows

from contracts.identifiers import uuid7
from worker.errors import Misconfigured
from worker.families import plan
from worker.store.database import Database
from worker.store.persist import Persister
from worker.store.writer import Writer


async def test_what_is_delivered_again_is_persisted_and_what_is_published_again_a_duplicate(
    database_url,
):
    """A redelivery means that the first confirmation may never have been sent: it must say persisted."""
    database = Database(database_url, name="test")
    persister = Persister(database, Writer(plan()), "task-lifecycle", "agent.replies.*")
    events = [created(), logged()]

    async def outcomes(**given) -> set[str]:
        return {
            one.outcome for one in (await persister.persist(decoded(*events, **given))).outcomes
        }

    assert await outcomes() == {"persisted"}
    assert await count(database_url, "execution_logs") == 1
    assert await outcomes() == {"duplicate"}
    assert await outcomes(redelivered=True) == {"persisted"}
    again = decoded(*events)
    for message in again:
        message.delivery.retried = True
    assert {one.outcome for one in (await persister.persist(again)).outcomes} == {"persisted"}
    assert await count(database_url, "execution_logs") == 1
    await database.close()


async def test_two_transactions_that_name_one_new_parent_write_their_rows_side_by_side(
    database_url,
):
    """Only the parent's row is waited for, once all rows that name it are written."""
    database = Database(database_url, name="test-worker")
    persister = Persister(database, Writer(plan()), "execution-log", "agent.replies.*")
    task = uuid7()
    parent = f"INSERT INTO tasks (task_id, placeholder) VALUES ('{task}', true)"
    async with asyncio.TaskGroup() as tasks, holding(database_url, parent):
        persisting = tasks.create_task(persister.persist(decoded(logged(task), logged(task))))
        [blocked] = await waiting(database_url)
        written = await rows(
            database_url,
            "SELECT FROM pg_locks WHERE pid = $1 AND relation = 'execution_logs'::regclass"
            " AND mode = 'RowExclusiveLock' AND granted",
            blocked,
        )
        assert written
    assert len(persisting.result().outcomes) == 2
    assert await count(database_url, "execution_logs") == 2
    assert await count(database_url, "tasks") == 1
    await database.close()


async def test_a_key_that_does_not_wait_makes_no_dead_letter(database_url):
    """Somebody changes a table, or attaches a partition, while a worker runs: it stops and says how to mend it."""
    database = Database(database_url, name="test")
    persister = Persister(database, Writer(plan()), "execution-log", "agent.replies.*")
    own = (
        "CREATE TABLE own (LIKE execution_logs INCLUDING ALL);"
        "ALTER TABLE execution_logs DETACH PARTITION execution_logs_default;"
        "ALTER TABLE own ADD CONSTRAINT fk_own FOREIGN KEY (task_id, tenant_id) REFERENCES tasks ON DELETE CASCADE;"
        "ALTER TABLE execution_logs ATTACH PARTITION own DEFAULT"
    )
    async with connected(database_url) as connection:
        await connection.execute(own)
    early = logged(log_id=UUID(int=1))
    with pytest.raises(Misconfigured, match='ALTER TABLE own ALTER CONSTRAINT "fk_own" DEFERRABLE'):
        await persister.persist(decoded(early))
    assert await count(database_url, "dead_letters") == 0
    async with connected(database_url) as connection:
        await connection.execute(
            'ALTER TABLE own ALTER CONSTRAINT "fk_own" DEFERRABLE INITIALLY DEFERRED'
        )
    [outcome] = (await persister.persist(decoded(early))).outcomes
    assert outcome.outcome == "persisted"
    await database.close()


async def test_a_conflict_names_no_parent(database_url):
    """What a refused message names is made by nobody."""
    database = Database(database_url, name="test")
    persister = Persister(database, Writer(plan()), "execution-log", "agent.replies.*")
    first = logged()
    [stored] = (await persister.persist(decoded(first))).outcomes
    [message] = decoded(logged(log_id=first.data["log_id"]))
    [refused] = (await persister.persist([message])).outcomes
    assert (stored.outcome, refused.reason) == ("persisted", "conflict")
    [task] = await rows(database_url, "SELECT task_id FROM tasks")
    assert str(task["task_id"]) == first.data["task_id"]
    await database.close()


OUTPUTS = [None, "null", "", 0, 0.5, False, [], {}, [None], {"a": {"b": [1, "x", None]}}, "\u2400"]


@pytest.mark.parametrize("size", [10, 5_000])
async def test_json_is_stored_as_it_was_said_however_large_its_neighbours_are(size, database_url):
    """Where events are large their JSON travels another way, and says the same: nothing is not the text null."""
    database = Database(database_url, name="test")
    persister = Persister(database, Writer(plan()), "execution-log", "agent.replies.*")
    events = [logged(action="x" * size, output_full=output) for output in OUTPUTS]
    await persister.persist(decoded(*events))
    found = await rows(
        database_url, "SELECT event_id, output_full::text AS said FROM execution_logs"
    )
    said = {row["event_id"]: row["said"] for row in found}
    texts = [said[event.id] and orjson.dumps(orjson.loads(said[event.id])) for event in events]
    assert texts == [None, *map(orjson.dumps, OUTPUTS[1:])]  # as text: False is no 0
    await database.close()
