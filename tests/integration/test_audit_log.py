"""The audit log: nobody changes it, and who does is found out."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from support.commands import command

from contracts.identifiers import uuid7
from worker.families.conversation import agent_audit_log
from worker.operations import audit_seals
from worker.operations.audit_seals import Head, seal
from worker.operations.audit_verify import verify
from worker.operations.upkeep import maintain
from worker.store.database import Database
from worker.store.partitions import Month, ensure_partitions

THIS_HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
INSERT = """
INSERT INTO agent_audit_log (audit_id, tenant_id, agent_id, action_type, action_details, timestamp, event_id, source,
    content_digest, recorded_at)
VALUES ($1, $2, 'a', 'file_write', '{"path": "/etc/hosts"}', $3, $1, '/agents/a', decode(repeat('00', 16), 'hex'), $3)"""


@pytest.fixture
async def db(settings):
    connection = await asyncpg.connect(settings.database.replace("+asyncpg", ""))
    for tenant in ("default", "acme"):
        await connection.execute(
            "INSERT INTO agents (agent_id, tenant_id, name, type) VALUES ('a', $1, 'A', 'infra')",
            tenant,
        )
    yield connection
    await connection.close()


@pytest.fixture
async def database(settings):
    database = Database(settings.database, name="test")
    yield database
    await database.close()


async def audited(
    db, hours_ago: float, *, tenant: str = "default", key: UUID | None = None
) -> UUID:
    """A row that was recorded so many hours before this hour began."""
    key = key or uuid7()
    await db.execute(INSERT, key, tenant, THIS_HOUR - timedelta(hours=hours_ago))
    return key


async def unguarded(db, sql: str, *arguments) -> None:
    """Do what only somebody with power over the whole server can do: triggers rest."""
    async with db.transaction():
        await db.execute("SET LOCAL session_replication_role = replica")
        await db.execute(sql, *arguments)


def told(found) -> set[tuple]:
    return {(one.tenant, one.what, one.number, one.audit_id) for one in found.problems}


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE {} SET action_type = 'nothing'",
        "DELETE FROM {}",
        "TRUNCATE {}",
    ],
)
async def test_a_change_is_refused(sql, db):
    """Neither the table nor the partition in which a row lies lets it be changed, whoever asks."""
    key = await audited(db, 0)
    place = await db.fetchval(
        "SELECT tableoid::regclass::text FROM agent_audit_log WHERE audit_id = $1", key
    )
    for table in ("agent_audit_log", place, "agent_audit_log_default"):
        await audited(db, 0, key=UUID(int=7 + len(table)))  # of 1970: lies in the default
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await db.execute(sql.format(table))
    assert await db.fetchval("SELECT count(*) FROM agent_audit_log") == 4


async def test_a_month_is_added_and_guarded_like_the_others(db, database):
    """`maintain` moves rows out of the default partition, and afterwards neither of the two lets them be changed."""
    month = Month.of(datetime.now(UTC)).plus(14)
    key = uuid7(month.first_key.int >> 80)
    await audited(db, 0, key=key)
    engine = create_async_engine(database.engine.url, poolclass=NullPool)
    async with engine.connect() as connection:
        added = await ensure_partitions(connection, agent_audit_log, months_ahead=14)
    await engine.dispose()
    new = month.partition_of("agent_audit_log")
    assert added[-1] == new
    assert await db.fetchval(f"SELECT audit_id FROM ONLY {new}") == key
    assert await db.fetchval("SELECT count(*) FROM ONLY agent_audit_log_default") == 0
    stray = UUID(int=7)
    await audited(db, 0, key=stray)
    for table in (new, "agent_audit_log_default"):
        for sql in ("UPDATE {} SET action_type = ''", "DELETE FROM {}", "TRUNCATE {}"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
                await db.execute(sql.format(table))


async def test_hours_that_have_passed_are_sealed_once(db, settings):
    """Each tenant has a chain of its own; the present hour waits; a second run finds nothing, and all is as it was."""
    for hours_ago in (3, 2.5, 2, 1, -2):  # the last of an hour that has not passed
        await audited(db, hours_ago)
    await audited(db, 1.5, tenant="acme")
    would = await maintain(settings, months_ahead=1, dry_run=True)
    assert would.audit_rows_sealed == 5
    assert await db.fetchval("SELECT count(*) FROM agent_audit_seals") == 0
    assert (await maintain(settings, months_ahead=1, dry_run=False)).audit_rows_sealed == 5
    assert (await maintain(settings, months_ahead=1, dry_run=False)).audit_rows_sealed == 0
    chains = await db.fetch(
        "SELECT tenant_id, number, cardinality(audit_ids) FROM agent_audit_seals ORDER BY 1, 2"
    )
    assert list(map(tuple, chains)) == [
        ("acme", 1, 1), ("default", 1, 2), ("default", 2, 1), ("default", 3, 1),
    ]  # fmt: skip
    found = await verify(settings)
    assert (found.problems, found.rows, found.seals, found.waiting) == ([], 5, 4, 1)


async def test_many_rows_of_an_hour_are_several_seals(db, database, settings, monkeypatch):
    """A seal holds so many rows and no more; none is left out between two."""
    monkeypatch.setattr(audit_seals, "SEALED_ROWS", 2)
    for _ in range(5):
        await audited(db, 1)
    done = await seal(database)
    assert (done.rows, done.seals) == (5, 3)
    assert (await verify(settings)).problems == []


async def test_a_row_that_committed_late_is_sealed_later(db, database, settings):
    """Its hour is sealed already, so it goes into a seal of its own, and nothing looks wrong."""
    await audited(db, 2)
    await seal(database)
    await audited(db, 2)
    assert (await verify(settings)).problems == []
    assert await seal(database) == audit_seals.Sealed(rows=1, seals=1)
    assert (await verify(settings)).problems == []


async def test_what_happened_to_rows_is_named(db, database, settings):
    """A row that is altered, removed, or added to a day that is sealed long since, each by its key."""
    altered, removed, _ = [await audited(db, hours) for hours in (30, 29, 1)]
    await seal(database)
    await unguarded(
        db, "UPDATE agent_audit_log SET ip_address = '192.0.2.1' WHERE audit_id = $1", altered
    )
    await unguarded(db, "DELETE FROM agent_audit_log WHERE audit_id = $1", removed)
    added = await audited(db, 28)
    assert told(await verify(settings)) == {
        ("default", "row altered", 1, altered),
        ("default", "row removed", 2, removed),
        ("default", "row added", None, added),
    }
    await seal(database)
    assert ("default", "row added", None, added) in told(await verify(settings))


async def test_what_happened_to_seals_is_named(db, database, settings):
    """A seal that is altered, exchanged, removed, or retired to hide its rows."""
    for hours in (5, 4, 3, 2, 1):
        await audited(db, hours)
    await seal(database)
    for sql in ("DELETE FROM agent_audit_seals", "UPDATE agent_audit_seals SET sealed_at = now()"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await db.execute(sql)
    seals = "UPDATE agent_audit_seals SET"
    await unguarded(db, f"{seals} row_digests = sha256('') WHERE number = 1")
    await unguarded(db, f"{seals} previous = sha256('') WHERE number = 2")
    await unguarded(db, "DELETE FROM agent_audit_seals WHERE number = 3")
    await db.execute(f"{seals} retired_at = now() WHERE number = 5")
    found = {(what, number) for _, what, number, _ in told(await verify(settings))}
    assert found == {
        ("seal altered", 1), ("row altered", 1),
        ("seal altered", 2), ("seal does not follow the one before", 2),
        ("seal removed", 3),
        ("rows retired before their time", 5),
    }  # fmt: skip


async def test_a_chain_that_was_cut_off_is_found_by_an_earlier_head(db, database, settings):
    """Without its last seals and their rows a chain looks whole, unless somebody remembers its head."""
    await audited(db, 2)
    last = await audited(db, 1)
    await seal(database)
    heads = (await verify(settings)).heads
    assert (await verify(settings, heads)).problems == []
    await unguarded(db, "DELETE FROM agent_audit_seals WHERE number = 2")
    await unguarded(db, "DELETE FROM agent_audit_log WHERE audit_id = $1", last)
    assert (await verify(settings)).problems == []
    assert told(await verify(settings, heads)) == {
        ("default", "seal removed since the earlier look", 2, None)
    }
    [wrong] = (await verify(settings, [Head("default", 1, bytes(32))])).problems
    assert wrong.what == "seal differs from the earlier look"


async def test_the_command_names_the_row_and_exits_1(db, settings, tmp_path):
    """As a person and as a program see it: 0 where all is as it was, 1 and the key where it is not, 2 for a bad file."""
    places = {"DATABASE_URL": settings.database}

    async def run(*arguments):
        return await asyncio.to_thread(command, "audit", "verify", *arguments, **places)

    key = await audited(db, 1)
    await asyncio.to_thread(command, "maintain", **places)
    done = await run("--json")
    assert (done.code, done.json["rows"], done.json["problems"]) == (0, 1, [])
    earlier = tmp_path / "audit.json"
    earlier.write_text(json.dumps(done.json))
    assert (await run("--earlier", str(earlier))).code == 0
    await unguarded(db, "DELETE FROM agent_audit_log")
    done = await run("--earlier", str(earlier))
    assert done.code == 1
    assert f"{key}" in done.out
    assert "row removed" in done.out
    earlier.write_text("{}")
    done = await run("--earlier", str(earlier))
    assert done.code == 2
    assert "--earlier" in done.err
