"""How migrations run: online over the asyncpg driver, offline as SQL, one run at a time.

The database is `DATABASE_URL` of the environment, or what code put into `config.attributes`: "url", or "connection" (a
synchronous SQLAlchemy connection; if it is in a transaction, that is the caller's to commit). Every migration leaves
its row in `schema_versions`, offline too. All of a run is one transaction: it happens whole or not at all.
"""

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.util import CommandError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import worker.families  # noqa: F401 (registers every table on the metadata)
from worker.store.embedding import Embedding, is_vector_index
from worker.store.migrations import asyncpg_url
from worker.store.partitions import is_partition
from worker.store.schema import metadata

ONE_AT_A_TIME = 0x6D696772617465
"""Key of the advisory lock that a run holds until its transaction ends."""

LOCK_TIMEOUT = "10s"
"""Longest wait for a table that is in use: a migration that queues for longer would hold up everyone behind it."""

config = context.config


def record_version(
    *, ctx: MigrationContext, step: MigrationInfo, heads: set[str], run_args: Any
) -> None:
    """Write or remove the row of one migration in `schema_versions`."""
    del run_args
    revision = step.up_revision
    if step.is_stamp or revision is None or not heads:  # without heads the table itself is gone
        return
    table = metadata.tables["schema_versions"]
    if step.is_upgrade:
        ctx.execute(
            table.insert().values(
                version=revision.revision,
                description=(revision.doc or "").rstrip("."),
                checksum=hashlib.sha256(Path(revision.path).read_bytes()).hexdigest(),
            )
        )
    else:
        ctx.execute(table.delete().where(table.c.version == revision.revision))


def include_name(name: str | None, kind: str, parents: Any) -> bool:
    """Partitions are no part of the model: they are made and dropped by `worker maintain`. Vector indexes come with pgvector."""
    del parents
    if name is None:
        return True
    return not (
        is_partition(name) if kind == "table" else kind == "index" and is_vector_index(name)
    )


def compare_type(
    context: MigrationContext, there: Any, declared: Any, there_type: Any, declared_type: Any
) -> bool | None:
    """An embedding may have either of its types; all others are compared as Alembic does."""
    del context, there, declared
    return (
        not isinstance(there_type, (Embedding, sa.ARRAY))
        if isinstance(declared_type, Embedding)
        else None
    )


def run() -> None:
    """Run the migrations in one transaction, after every other run has ended."""
    timeout = config.attributes.get("lock_timeout", LOCK_TIMEOUT)
    with context.begin_transaction():
        migration = context.get_context()
        migration.execute("SET LOCAL lock_timeout = 0")
        migration.execute(f"SELECT pg_advisory_xact_lock({ONE_AT_A_TIME})")
        migration.execute(f"SET LOCAL lock_timeout = '{timeout}'")
        context.run_migrations()


def configure(**where: Any) -> None:
    """The settings that online and offline runs share."""
    context.configure(
        target_metadata=metadata,
        include_name=include_name,
        compare_type=compare_type,
        compare_server_default=True,
        on_version_apply=record_version,
        **where,
    )


def offline() -> None:
    """Write SQL instead of running it; no database is needed."""
    configure(dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, literal_binds=True)
    run()


def online(connection: sa.Connection) -> None:
    """Run over a connection that is open."""
    configure(connection=connection)
    run()


async def connect() -> None:
    """Open a connection, run over it, close it."""
    url = config.attributes.get("url") or os.environ.get("DATABASE_URL")
    if not url:
        raise CommandError("set DATABASE_URL to the database to migrate (postgresql://…)")
    engine = create_async_engine(asyncpg_url(url), poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(online)
    finally:
        await engine.dispose()


if context.is_offline_mode():
    offline()
elif (given := config.attributes.get("connection")) is not None:
    online(given)
else:
    asyncio.run(connect())
