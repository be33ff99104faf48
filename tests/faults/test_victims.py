"""Transactions that PostgreSQL ends for no fault of theirs: tried again, never a success, never a dead letter."""

import asyncio
from uuid import UUID

import pytest
from support.broker import client
from support.events import created, logged
from support.ledger import Ledger
from support.locks import holding, waiting
from support.tables import connected, count, rows
from support.waiting import until
from support.workers import running_worker

from contracts.identifiers import uuid7
from worker import telemetry
from worker.errors import Unavailable
from worker.store.database import Database


def not_now(family: str) -> float:
    """How often transactions of a family were told 'not now' in this process."""
    return telemetry.transactions.labels(family, "unavailable")._value.get()


def placed(key: UUID, table: str, columns: str) -> str:
    """A row of somebody else's under a key of ours."""
    return f"INSERT INTO {table} {columns}".replace("$", f"'{key}'")


TASK_ROW = "(task_id, request_text) VALUES ($, 'theirs')"


async def test_a_deadlock_makes_the_worker_try_again(settings):
    """A foreign session takes two tasks in the opposite order; the worker is the victim, and its messages land once."""
    first, second = sorted(uuid7() for _ in range(2))
    ledger = Ledger()
    before = not_now("task-lifecycle")
    async with client(settings.broker) as agent, running_worker(settings):
        async with holding(
            settings.database,
            "SET LOCAL deadlock_timeout = '1h'",  # the worker finds it, and so is the victim
            placed(second, "tasks", TASK_ROW),
        ) as foreign:
            await ledger.publish_batch(
                agent,
                [created(first), created(second), *(created() for _ in range(20))],
                "task.created",
            )
            await waiting(settings.database)
            await foreign.execute(placed(first, "tasks", TASK_ROW))
        await ledger.hear(agent)
    assert not_now("task-lifecycle") > before
    await ledger.balance(settings.database)


@pytest.mark.parametrize("how", ["lock_timeout", "statement_timeout", "pg_cancel_backend"])
async def test_a_statement_that_is_not_given_its_time_is_tried_again(how, settings):
    """Behind a lock of somebody else's, whoever ends the wait: the messages wait for as long as it takes."""
    ledger = Ledger()
    if how != "pg_cancel_backend":
        await rows(
            settings.database,
            f"DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET {how} = 150', current_database()); END $$",
        )
    before = not_now("execution-log")
    async with client(settings.broker) as agent, running_worker(settings):
        async with holding(
            settings.database, "SET LOCAL statement_timeout = 0", "LOCK TABLE execution_logs"
        ) as foreign:
            await ledger.publish(agent, [logged() for _ in range(30)])
            while not_now("execution-log") < before + 4:
                if how == "pg_cancel_backend":
                    for process in await waiting(settings.database):
                        await foreign.execute("SELECT pg_cancel_backend($1)", process)
                told = not_now("execution-log")
                await until(lambda told=told: not_now("execution-log") > told)
            assert agent.confirmations.empty(), "told before it was so"
        await ledger.hear(agent)
    await ledger.balance(settings.database)


NOT_NOW = (
    "08006", "25006", "25P03", "28P01", "3D000", "40001", "40P01", "53100", "53200", "53300",
    "53400", "55006", "55P03", "57014", "57P01", "57P02", "57P03", "58030", "XX000", "XX001",
)  # fmt: skip
NEVER = ("21000", "22P05", "23502", "23503", "23505", "23514", "44000", "54000", "P0001")

# The sequence counts beyond the transaction: the first three attempts of a code fail, as a victim does.
_FAULTY = """
CREATE SEQUENCE attempts;
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.action LIKE 'never %' OR (NEW.action LIKE 'not now %' AND nextval('attempts') % 4 <> 0) THEN
        RAISE EXCEPTION USING ERRCODE = right(NEW.action, 5),
            MESSAGE = 'Verklemmung entdeckt: doppelter Schlüsselwert verletzt den Partitions-Constraint';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER fail BEFORE INSERT ON execution_logs FOR EACH ROW EXECUTE FUNCTION fail();
"""


async def test_what_an_error_means_is_its_sqlstate_whatever_language_the_server_speaks(settings):
    """Twenty codes of the infrastructure are waited out, nine refusals are letters; the text, in German, counts for nothing."""
    ledger = Ledger()
    async with connected(settings.database) as session:
        await session.execute(_FAULTY)
    quick = settings.model_copy(update={"retry_longest": 0.05})
    async with client(settings.broker) as agent, running_worker(quick):
        for code in NOT_NOW:
            await ledger.publish(agent, [logged(action=f"not now {code}"), logged(action="fine")])
            await ledger.hear(agent)
        for code in NEVER:
            refused = logged(action=f"never {code}")
            await ledger.publish(agent, [logged(action="fine")])
            await agent.publish(refused)
            ledger.expect_letter(refused.to_json(), "unstorable")
        await ledger.hear(agent)
    await ledger.balance(settings.database)


async def test_a_row_that_finds_its_partition_taken_away_is_no_bad_row(database_url):
    """The refusal of a partition is known by where in the server it was made, not by its text."""
    database = Database(database_url, name="test-worker")
    try:
        with pytest.raises(Unavailable) as told:
            async with database.transaction() as connection:
                await connection.execute(
                    "INSERT INTO lifecycle_events_default (event_id, time, entity_type, entity_id, type, data, source, "
                    "content_digest) VALUES ($1, now(), 'task', '1', 't', '{}', '/a', $2)",
                    uuid7(),
                    bytes(16),
                )
        assert told.value.sqlstate == "23514"
    finally:
        await database.close()


async def test_serialisation_is_not_asked_of_the_database(settings):
    """Where SERIALIZABLE is the default, two workers with the same entities still get their work done in READ COMMITTED."""
    await rows(
        settings.database,
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', "
        "current_database()); END $$",
    )
    ledger = Ledger()
    small = settings.model_copy(update={"batch_messages": 5})
    before = not_now("task-lifecycle")
    async with client(settings.broker) as agent, running_worker(small), running_worker(small):
        task = uuid7()
        await asyncio.gather(
            *(ledger.publish(agent, [created(parent_task_id=task)]) for _ in range(60))
        )
        await ledger.hear(agent)
    assert not_now("task-lifecycle") == before
    assert await count(settings.database, "tasks") == 61
    await ledger.balance(settings.database)
