"""The audit log leaves its table only as it was sealed, and comes back so: `worker audit verify` finds nothing either way."""

import asyncpg
import pytest
from support.archives import add_past_month, fingerprint, key_in, middle, months_ago

from contracts.identifiers import uuid7
from worker.errors import WorkerError
from worker.operations.archive_files import Archive
from worker.operations.archive_restore import restore
from worker.operations.audit_seals import seal
from worker.operations.audit_verify import verify
from worker.operations.retirement import retire
from worker.store.database import Database

OLD, YOUNGER, RECENT = months_ago(40), months_ago(39), months_ago(3)
INSERT = """
INSERT INTO agent_audit_log (audit_id, tenant_id, agent_id, action_type, action_details, ip_address, timestamp, event_id,
    source, content_digest, recorded_at)
VALUES ($1, $2, 'a', 'file_write', '{"path": "/etc/hosts"}', '192.0.2.1/24', $3, $1, '/a', decode(repeat('00', 16), 'hex'), $4)"""


@pytest.fixture
async def db(settings):
    connection = await asyncpg.connect(settings.database.replace("+asyncpg", ""))
    for tenant in ("default", "acme"):
        await connection.execute(
            "INSERT INTO agents (agent_id, tenant_id, name, type) VALUES ('a', $1, 'A', 'infra')",
            tenant,
        )
    for month in (OLD, YOUNGER, RECENT):
        await add_past_month(connection, "agent_audit_log", month)
    yield connection
    await connection.close()


@pytest.fixture
async def database(settings):
    database = Database(settings.database, name="test")
    yield database
    await database.close()


@pytest.fixture
def run(database, tmp_path):
    async def run(*, dry_run=False):
        done = await retire(database, "", str(tmp_path), dry_run=dry_run)
        return next(one for one in done if one.table == "agent_audit_log")

    return run


@pytest.fixture
def bring_back(database, tmp_path):
    async def bring_back(month=OLD):
        return await restore(database, Archive(str(tmp_path)), "agent_audit_log", str(month))

    return bring_back


async def audited(db, month, *, tenant="default", recorded=None, key=None):
    key = key or key_in(month)
    moment = middle(month)
    await db.execute(INSERT, key, tenant, moment, middle(recorded) if recorded else moment)
    return key


async def unguarded(db, sql, *arguments):
    """Do what only somebody with power over the whole server can do: triggers rest."""
    async with db.transaction():
        await db.execute("SET LOCAL session_replication_role = replica")
        await db.execute(sql, *arguments)


async def test_the_log_leaves_and_comes_back_and_verifies_each_time(
    db, database, settings, run, bring_back
):
    """Months and stray rows of two tenants; retired seals hold again when their rows are back; twice is once."""
    for month in (OLD, OLD, YOUNGER, RECENT):
        await audited(db, month)
    await audited(db, OLD, tenant="acme")
    await audited(db, OLD, key=uuid7(1))  # of 1970: in the default partition
    await seal(database)
    before = await fingerprint(db, "agent_audit_log")
    would = await run(dry_run=True)
    assert await fingerprint(db, "agent_audit_log") == before
    done = await run()
    assert (done.months, done.rows, done.kept) == ([str(OLD), str(YOUNGER)], 5, [])
    assert (would.months, would.rows) == (done.months, done.rows)
    found = await verify(settings)
    assert (found.problems, found.rows, found.retired) == ([], 1, 3)
    assert (await run()).rows == 0
    for month in (OLD, YOUNGER, OLD):
        await bring_back(month)
        assert (await verify(settings)).problems == []
    assert await fingerprint(db, "agent_audit_log") == before
    found = await verify(settings)
    assert (found.rows, found.retired) == (6, 0)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
        await db.execute(f"TRUNCATE {OLD.partition_of('agent_audit_log')}")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("UPDATE agent_audit_log SET action_type = 'x' WHERE audit_id = $1", "1 are not as they were sealed"),
        ("DELETE FROM agent_audit_log WHERE audit_id = $1", "1 are not as they were sealed"),
    ],
)  # fmt: skip
async def test_what_was_altered_stays_to_be_found(db, database, settings, run, harm, said):
    """Retention would otherwise cover it up: the month stays, it is said why, and verification goes on naming the row."""
    key = await audited(db, OLD)
    await audited(db, OLD)
    await audited(db, YOUNGER)
    await seal(database)
    await unguarded(db, harm, key)
    done = await run()
    assert (done.months, said in done.kept[0]) == ([str(YOUNGER)], True)
    assert [one.audit_id for one in (await verify(settings)).problems] == [key]


async def test_what_was_never_sealed_or_recorded_late_stays(db, database, settings, run):
    """A row that somebody put in has no seal; one that was recorded lately is not three years old, whatever its key says."""
    await audited(db, YOUNGER)
    await seal(database)
    await audited(db, OLD)  # not sealed: its hour has passed
    await audited(db, YOUNGER, recorded=months_ago(2))
    await audited(db, OLD, key=uuid7(1), recorded=months_ago(2))
    await seal(database)
    done = await run()
    assert done.months == []
    assert "in no seal" in " ".join(done.kept)
    assert "recorded too lately" in " ".join(done.kept)
    assert await db.fetchval("SELECT count(*) FROM agent_audit_log") == 4


async def test_an_archive_that_was_altered_is_not_restored(
    db, database, settings, run, bring_back, tmp_path
):
    """The file and its manifest fit each other, and not the seals: nothing comes back."""
    await audited(db, OLD)
    await seal(database)
    await run()
    archive = Archive(str(tmp_path))
    [part] = archive.parts()
    lines = [line.decode().replace("/etc/hosts", "/tmp/hosts").strip() for line in archive.lines(part)]  # fmt: skip
    archive.delete(part)
    from worker.operations.archive_files import PartWriter

    writer = PartWriter(archive, "agent_audit_log", OLD)
    writer.write(lines)
    writer.finish(part.columns, part.revision)
    with pytest.raises(WorkerError, match="1 rows of the archive are not as they were sealed"):
        await bring_back()
    assert await db.fetchval("SELECT count(*) FROM agent_audit_log") == 0
    assert (await verify(settings)).problems == []


async def test_an_audit_trail_comes_back_without_its_agent(db, database, settings, run, bring_back):
    """An agent that is gone since is named again, as a placeholder: the trail has to be whole."""
    await audited(db, OLD)
    await seal(database)
    await run()
    await db.execute("DELETE FROM agents WHERE agent_id = 'a' AND tenant_id = 'default'")
    done = await bring_back()
    assert (done.rows, done.placeholders) == (1, 1)
    assert await db.fetchval("SELECT placeholder FROM agents WHERE tenant_id = 'default'")
    found = await verify(settings)
    assert (found.problems, found.rows) == ([], 1)
