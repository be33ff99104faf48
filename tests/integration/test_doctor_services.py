"""The doctor against real services that are set up wrongly, and what `worker run` refuses."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
import pytest
from pydantic import SecretStr
from support.tables import connected
from support.workers import drain

from worker.broker.connection import connect
from worker.errors import Misconfigured
from worker.operations import broker_checks, database_checks, management_checks
from worker.operations.findings import Finding, Level
from worker.store.database import Database


async def database_findings(settings) -> dict[str, Finding]:
    database = Database(settings.database, name="doctor")
    try:
        return {one.check: one for one in await database_checks.examine(database, settings)}
    finally:
        await database.close()


@asynccontextmanager
async def database_setting(settings, name: str, value: str) -> AsyncIterator[None]:
    """This test's database with another setting, for every session that begins from now on."""
    async with connected(settings.database) as connection:
        database = await connection.fetchval("SELECT current_database()")
        await connection.execute(f'ALTER DATABASE "{database}" SET {name} = {value}')
        yield
        await connection.execute("SET transaction_read_only = off")
        await connection.execute(f'ALTER DATABASE "{database}" RESET {name}')


@pytest.mark.parametrize(
    ("name", "value", "check", "told"),
    [
        ("synchronous_commit", "off", "durability", "synchronous_commit is off"),
        ("default_transaction_read_only", "on", "writing", "takes no writes"),
        ("default_transaction_isolation", "serializable", "isolation", "is serializable"),
    ],
)
async def test_a_setting_of_the_database_is_found_in_the_workers_own_session(
    settings, name, value, check, told
):
    """It counts wherever it was set, also by ALTER DATABASE or ALTER ROLE."""
    async with database_setting(settings, name, value):
        found = (await database_findings(settings))[check]
    assert found.level is not Level.OK
    assert found.remedy
    assert told in found.what


async def test_a_foreign_key_that_does_not_wait_is_named_and_no_worker_starts(settings):
    """A table of one's own may have one: rows that come before what they name would be refused."""
    mending = (
        'ALTER TABLE execution_logs ALTER CONSTRAINT "fk_execution_logs_task_id"'
        " DEFERRABLE INITIALLY DEFERRED"
    )
    assert (await database_findings(settings))["foreign keys"].level is Level.OK
    async with connected(settings.database) as connection:
        await connection.execute(mending.replace("INITIALLY DEFERRED", "INITIALLY IMMEDIATE"))
        found = (await database_findings(settings))["foreign keys"]
        assert found.level is Level.MEND
        assert found.remedy
        assert mending in found.remedy
        with pytest.raises(Misconfigured, match=re.escape(mending)):
            await drain(settings)
        await connection.execute(mending)
    assert (await database_findings(settings))["foreign keys"].level is Level.OK


async def test_a_limit_on_connections_of_the_database_is_found(settings):
    """Whichever is smaller: the server's, the role's or the database's."""
    async with connected(settings.database) as connection:
        database = await connection.fetchval("SELECT current_database()")
        await connection.execute(f'ALTER DATABASE "{database}" CONNECTION LIMIT 5')
    found = (await database_findings(settings))["connections"]
    assert found.level is Level.NOTE
    assert "may have 5" in found.what


async def test_a_worker_refuses_a_database_that_loses_commits(settings):
    """With what is off and how to mend it; a setting lets trials run all the same."""
    unsafe = settings.model_copy(update={"allow_unsafe_database": False})
    async with database_setting(settings, "synchronous_commit", "off"):
        with pytest.raises(Misconfigured, match=r"synchronous_commit is off.*Set it to on"):
            await drain(unsafe)
        await drain(settings)


async def test_a_worker_refuses_a_database_that_takes_no_writes(settings):
    """Also where durability may be off: without writing there is nothing to try."""
    async with database_setting(settings, "default_transaction_read_only", "on"):
        with pytest.raises(Misconfigured, match="takes no writes"):
            await drain(settings.model_copy(update={"start_timeout": 0}))


WRONG = {
    "a queue without at-least-once dead-lettering": (
        {"x-queue-type": "quorum"},
        "queue worker.trajectory has x-",
    ),
    "a queue with another delivery limit": (
        {
            "x-queue-type": "quorum",
            "x-delivery-limit": 20,
            "x-dead-letter-exchange": "agent.dead-letters",
            "x-dead-letter-routing-key": "trajectory",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
        "x-",
    ),
    "a classic queue": ({}, "x-"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_queue_that_would_lose_messages_is_found_and_refused(settings, case):
    """By the doctor with the remedy, by `worker run` with the command."""
    arguments, told = WRONG[case]
    async with await aio_pika.connect(settings.broker) as other:
        channel = await other.channel()
        await channel.queue_delete("worker.trajectory")
        await channel.declare_queue("worker.trajectory", durable=True, arguments=arguments)
    connection = await connect(settings.broker, name="doctor")
    try:
        findings = await broker_checks.examine(connection)
    finally:
        await connection.close()
    [wrong] = [one for one in findings if one.level is Level.MEND]
    assert told in wrong.what
    assert "delete queue worker.trajectory" in wrong.remedy
    with pytest.raises(Misconfigured, match=r"worker\.trajectory has x-.*topology apply"):
        await drain(settings)


async def test_without_a_management_api_the_doctor_says_what_it_cannot_see(settings):
    """And one that does not answer is to mend, without its password."""
    [unseen] = await management_checks.examine(settings)
    assert (unseen.level, unseen.check) == (Level.NOTE, "policies")
    away = SecretStr("http://someone:secret@127.0.0.1:1")
    [finding] = await management_checks.examine(
        settings.model_copy(update={"management_url": away})
    )
    assert finding.level is Level.MEND
    assert "127.0.0.1:1 cannot be read" in finding.what
    assert "secret" not in finding.what
