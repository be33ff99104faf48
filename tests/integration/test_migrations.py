"""Migrations: from nothing and back, from several sides at once, as SQL for a person to run."""

import asyncio
import hashlib
import os
import re
import sys
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import worker.families
from worker.store import migrations
from worker.store.schema import metadata

ROOT = Path(__file__).parents[2]
VERSIONS = {path.name.partition("_")[0]: path for path in (ROOT / "alembic/versions").glob("*.py")}

# Everything of a schema that a person could tell apart; partitions are left out where only the model matters. What
# comes with pgvector alone (the type of embeddings, their indexes) is no part of the model either.
COLUMNS = """
SELECT c.relname, a.attname, replace(format_type(a.atttypid, a.atttypmod), 'vector(1536)', 'real[]'), a.attnotnull, a.attgenerated::text,
    pg_get_expr(d.adbin, d.adrelid)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND c.relname <> 'alembic_version'"""
CONSTRAINTS = """
SELECT c.relname, k.conname, pg_get_constraintdef(k.oid)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
WHERE c.relnamespace = 'public'::regnamespace AND NOT c.relispartition AND k.contype <> 'n'
    AND c.relname <> 'alembic_version'"""
INDEXES = """
SELECT c.relname, i.relname, pg_get_indexdef(x.indexrelid), pg_get_partkeydef(c.oid)
FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
WHERE c.relnamespace = 'public'::regnamespace AND NOT c.relispartition AND c.relname <> 'alembic_version'
    AND i.relam NOT IN (SELECT oid FROM pg_am WHERE amname = 'hnsw')"""
PARTITIONS = """
SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relispartition AND c.relkind = 'r'"""
REST = """
SELECT proname, pg_get_functiondef(oid) FROM pg_proc p WHERE pronamespace = 'public'::regnamespace
    AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e')
UNION ALL SELECT extname, extversion FROM pg_extension WHERE extname <> 'plpgsql'
UNION ALL SELECT indexname, indexdef FROM pg_indexes WHERE indexdef LIKE '%USING hnsw%'
UNION ALL SELECT viewname, definition FROM pg_views WHERE schemaname = 'public'
UNION ALL SELECT tgname || tgrelid::regclass, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT polrelid::regclass || ' ' || polname, polcmd::text || ' ' || pg_get_expr(polqual, polrelid) FROM pg_policy
UNION ALL SELECT oid::regclass::text, 'row security ' || relforcerowsecurity FROM pg_class WHERE relrowsecurity
UNION ALL SELECT c.oid::regclass || ' ' || a.grantee::regrole, string_agg(a.privilege_type, ' ' ORDER BY a.privilege_type)
    FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
    WHERE c.relnamespace = 'public'::regnamespace AND a.grantee <> c.relowner GROUP BY c.oid, a.grantee
UNION ALL SELECT 'default ' || a.grantee::regrole, a.privilege_type FROM pg_default_acl CROSS JOIN aclexplode(defaclacl) a"""


def plain(url):
    return url.replace("+asyncpg", "")


async def fetch(url, *queries):
    connection = await asyncpg.connect(plain(url))
    try:
        return [{tuple(row) for row in await connection.fetch(query)} for query in queries]
    finally:
        await connection.close()


async def whole(url):
    """The schema of a database, to compare."""
    return await fetch(url, COLUMNS, CONSTRAINTS, INDEXES, PARTITIONS, REST)


async def alembic(*arguments, url=None):
    """Alembic's own command line, as a person runs it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    environment.pop("DATABASE_URL", None)
    if url:
        environment["DATABASE_URL"] = url
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "alembic.config",
        *arguments,
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_up_down_and_up_again(empty_database_url):
    """An empty database gets the schema, loses every trace of it, and gets the same one again."""
    await asyncio.to_thread(migrations.upgrade, plain(empty_database_url))
    first = await whole(empty_database_url)
    await asyncio.to_thread(migrations.downgrade, empty_database_url, "base")
    assert await whole(empty_database_url) == [set()] * 5
    await asyncio.to_thread(migrations.upgrade, empty_database_url)
    assert await whole(empty_database_url) == first


async def test_tables_of_ones_own_wait_with_their_keys_to_entities(empty_database_url):
    """Not with keys to other tables, nor with those that do nothing ON DELETE."""
    own = """
        CREATE TABLE notes (task_id uuid, tenant_id text, said uuid,
            CONSTRAINT waits FOREIGN KEY (task_id, tenant_id) REFERENCES tasks ON DELETE CASCADE,
            CONSTRAINT nothing FOREIGN KEY (task_id, tenant_id) REFERENCES tasks);
        CREATE TABLE words (said uuid PRIMARY KEY);
        ALTER TABLE notes ADD CONSTRAINT other FOREIGN KEY (said) REFERENCES words ON DELETE CASCADE"""
    waiting = "SELECT conname FROM pg_constraint WHERE condeferred AND conrelid = 'notes'::regclass"
    await asyncio.to_thread(migrations.upgrade, empty_database_url, "0010")
    connection = await asyncpg.connect(plain(empty_database_url))
    await connection.execute(own)
    await asyncio.to_thread(migrations.upgrade, empty_database_url, "0011")
    assert [row["conname"] for row in await connection.fetch(waiting)] == ["waits"]
    await asyncio.to_thread(migrations.downgrade, empty_database_url, "0010")
    assert await connection.fetch(waiting) == []
    await connection.close()


async def test_every_step_goes_up_and_down(empty_database_url):
    """Each migration alone can be undone, and leaves what was before it."""
    before = [set()] * 5
    for revision in sorted(VERSIONS):
        await asyncio.to_thread(migrations.upgrade, empty_database_url, revision)
        after = await whole(empty_database_url)
        await asyncio.to_thread(migrations.downgrade, empty_database_url, "-1")
        assert await whole(empty_database_url) == before
        await asyncio.to_thread(migrations.upgrade, empty_database_url, revision)
        assert await whole(empty_database_url) == after
        before = after


async def test_autogenerate_finds_nothing(database_url):
    """Alembic sees no difference between the tables that the code declares and those that were migrated."""
    await asyncio.to_thread(command.check, migrations.config(database_url))


async def test_the_code_declares_what_was_migrated(database_url, empty_database_url):
    """Columns, defaults, checks, foreign keys and indexes, which Alembic compares in part, are the same one by one."""
    assert worker.families
    engine = create_async_engine(empty_database_url, poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await engine.dispose()
    declared = await fetch(empty_database_url, COLUMNS, CONSTRAINTS, INDEXES)
    migrated = await fetch(database_url, COLUMNS, CONSTRAINTS, INDEXES)
    assert declared == migrated


async def test_offline_sql_makes_the_same_schema(database_url, empty_database_url):
    """`alembic upgrade head --sql` needs no database, and what it prints makes the same schema, versions included."""
    code, script, errors = await alembic("upgrade", "head", "--sql")
    assert code == 0, errors
    connection = await asyncpg.connect(plain(empty_database_url))
    await connection.execute(script)
    await connection.close()
    assert await whole(empty_database_url) == await whole(database_url)
    versions = "SELECT version, description, checksum FROM schema_versions"
    assert await fetch(empty_database_url, versions) == await fetch(database_url, versions)


async def test_offline_sql_goes_back_too(database_url):
    """The way back as SQL leaves nothing of the schema."""
    code, script, errors = await alembic("downgrade", "head:base", "--sql")
    assert code == 0, errors
    connection = await asyncpg.connect(plain(database_url))
    await connection.execute(script)
    await connection.close()
    assert await whole(database_url) == [set()] * 5


async def test_two_at_once_are_one(empty_database_url, database_url):
    """Three migrations of one database at one time all succeed, and it is migrated once."""
    runs = [alembic("upgrade", "head", url=plain(empty_database_url)) for _ in range(3)]
    for code, _, errors in await asyncio.gather(*runs):
        assert code == 0, errors
    assert await whole(empty_database_url) == await whole(database_url)
    assert await fetch(empty_database_url, "SELECT version FROM schema_versions") == [
        {(version,) for version in VERSIONS}
    ]


async def test_a_migration_gives_up_on_a_table_in_use(database_url):
    """A lock that is not to be had ends the run with nothing changed, instead of holding up every writer behind it."""
    before = await whole(database_url)
    connection = await asyncpg.connect(plain(database_url))
    async with connection.transaction():
        await connection.execute("LOCK TABLE trajectories IN ACCESS SHARE MODE")
        config = migrations.config(database_url)
        config.attributes["lock_timeout"] = "200ms"
        with pytest.raises(sa.exc.DBAPIError, match="lock timeout"):
            await asyncio.to_thread(command.downgrade, config, "base")
    await connection.close()
    assert await whole(database_url) == before


async def test_every_migration_leaves_its_row(database_url):
    """schema_versions holds each revision with its description and the SHA-256 of its file."""
    [found] = await fetch(
        database_url, "SELECT version, description, checksum FROM schema_versions"
    )
    expected = set()
    for version, path in VERSIONS.items():
        text = path.read_bytes()
        description = re.match(rb'"""(.*?)\.?\n', text)[1].decode()
        expected.add((version, description, hashlib.sha256(text).hexdigest()))
    assert found == expected


async def test_what_is_missing_is_known(database_url, empty_database_url):
    """A worker learns which of the revisions that it needs a database has not, and which it has."""
    for url, applied in ((database_url, set(VERSIONS)), (empty_database_url, set())):
        engine = create_async_engine(url, poolclass=NullPool)
        async with engine.connect() as connection:
            assert await migrations.applied_versions(connection) == applied
            needed = ["0002", "9999"]
            assert await migrations.missing(connection, needed) == set(needed) - applied
        await engine.dispose()


async def test_code_may_hand_over_its_connection(empty_database_url):
    """With a connection in config.attributes that is in a transaction, the caller commits, or does not."""
    engine = create_async_engine(empty_database_url, poolclass=NullPool)
    config = migrations.config()

    def run(connection):
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    async with engine.connect() as connection:
        transaction = await connection.begin()
        await connection.run_sync(run)
        assert await migrations.applied_versions(connection) == set(VERSIONS)
        await transaction.rollback()
        assert await migrations.applied_versions(connection) == set()
    await engine.dispose()


async def test_without_an_address_it_says_which_setting():
    """The command line names the setting that it lacks."""
    code, out, errors = await alembic("upgrade", "head")
    assert code != 0
    assert "DATABASE_URL" in out + errors
