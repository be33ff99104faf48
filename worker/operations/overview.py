"""What there is right now: queues, dead letters, outbox, tables, orphans, versions.

A service that cannot be reached is a line of the overview, not the end of it.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker import families
from worker.broker import topology
from worker.errors import WorkerError
from worker.operations.retention_policy import policies
from worker.operations.services import open_broker, open_database
from worker.settings import Settings
from worker.store.migrations import applied_versions
from worker.store.operational import dead_letters, outbox
from worker.store.schema import Kind, tables_of_kind

COUNTED_ROWS = 10_000
"""Up to here the rows of a table are counted; beyond, the server's estimate is told."""


@dataclass(frozen=True)
class QueueState:
    """One family's queue and its dead-letter queue; None where a queue is missing."""

    family: str
    queue: str
    waiting: int | None
    consumers: int | None
    dead_letters_waiting: int | None


@dataclass(frozen=True)
class Broker:
    """The broker and its queues; `problem` where it could not be asked."""

    place: str
    version: str | None = None
    problem: str | None = None
    queues: tuple[QueueState, ...] = ()


@dataclass(frozen=True)
class LetterCount:
    """Unresolved dead letters of one family and reason."""

    family: str
    reason: str
    count: int
    oldest_seconds: float


@dataclass(frozen=True)
class TableSize:
    """A table's rows: counted, or estimated by the server where there are many."""

    table: str
    kind: str
    rows: int
    estimated: bool
    bytes: int


@dataclass(frozen=True)
class Outbox:
    """Transactions whose confirmations are not yet with the broker."""

    rows: int
    oldest_seconds: float | None


@dataclass(frozen=True)
class Contents:
    """What is in a migrated database."""

    outbox: Outbox
    dead_letters: tuple[LetterCount, ...]
    tables: tuple[TableSize, ...]
    orphans: dict[str, int] = field(default_factory=dict)
    retention: dict[str, str] = field(default_factory=dict)
    """For each table how long its rows are active and archived: for as long is a repeated message recognised."""


@dataclass(frozen=True)
class Stored:
    """The database; `problem` where it could not be asked, `contents` once the migrations are applied."""

    place: str
    version: str | None = None
    problem: str | None = None
    migrations_applied: tuple[str, ...] = ()
    migrations_missing: tuple[str, ...] = ()
    contents: Contents | None = None


@dataclass(frozen=True)
class Overview:
    """Both services."""

    broker: Broker
    database: Stored


async def overview(settings: Settings) -> Overview:
    """Ask both services at once."""
    broker, stored = await asyncio.gather(ask_broker(settings), ask_database(settings))
    return Overview(broker, stored)


async def ask_broker(settings: Settings) -> Broker:
    """The broker's version and the queues of every family."""
    place = settings.broker_place
    try:
        async with open_broker(settings) as connection:
            names = (*families.families(), topology.UNROUTED_FAMILY)
            queues = [await _queue(connection, name) for name in names]
            return Broker(place, connection.server, None, tuple(queues))
    except WorkerError as error:
        return Broker(place, problem=str(error))


async def _queue(connection: Any, family: str) -> QueueState:
    queue = topology.queue_name(family)
    counts = await topology.queue_counts(connection, queue)
    waiting, consumers = counts or (None, None)
    dead = await topology.message_count(connection, topology.dead_letter_queue_name(family))
    return QueueState(family, queue, waiting, consumers, dead)


async def ask_database(settings: Settings) -> Stored:
    """The database's version, migrations, and contents."""
    place = settings.database_place
    try:
        async with open_database(settings) as database:
            version = await database.check()
            async with database.connection() as connection:
                applied = await applied_versions(connection)
                absent = families.required_revisions() - applied
                contents = None if absent else await _contents(connection, settings)
            return Stored(
                place, version, None, tuple(sorted(applied)), tuple(sorted(absent)), contents
            )
    except WorkerError as error:
        return Stored(place, problem=str(error))


async def _contents(connection: AsyncConnection, settings: Settings) -> Contents:
    return Contents(
        outbox=await outbox_state(connection),
        dead_letters=await unresolved_letters(connection),
        tables=await _tables(connection),
        orphans=await _orphans(connection),
        retention={name: str(one) for name, one in policies(settings.retention).items()},
    )


async def outbox_state(connection: AsyncConnection) -> Outbox:
    """How many rows wait, and for how long the oldest has."""
    row = (
        await connection.execute(
            sa.select(sa.func.count(), _age(sa.func.min(outbox.c.created_at))).select_from(outbox)
        )
    ).one()
    return Outbox(row[0], None if row[1] is None else float(row[1]))


async def unresolved_letters(connection: AsyncConnection) -> tuple[LetterCount, ...]:
    """Dead letters that nobody has replayed, edited or discarded, by family and reason."""
    place = (dead_letters.c.family, dead_letters.c.reason)
    rows = await connection.execute(
        sa.select(*place, sa.func.count(), _age(sa.func.min(dead_letters.c.first_seen_at)))
        .where(dead_letters.c.resolved_at.is_(None))
        .group_by(*place)
        .order_by(*place)
    )
    return tuple(LetterCount(family, reason, n, float(age)) for family, reason, n, age in rows)


def _age(moment: Any) -> Any:
    return sa.func.extract("epoch", sa.func.now() - moment)


async def _tables(connection: AsyncConnection) -> tuple[TableSize, ...]:
    return tuple(
        [
            await _size(connection, table.name, kind)
            for kind in Kind
            if kind is not Kind.ACCOUNT
            for table in tables_of_kind(kind)
        ]
    )


async def _size(connection: AsyncConnection, table: str, kind: Kind) -> TableSize:
    """One table with all its partitions and indexes."""
    counted = await connection.scalar(
        sa.text(f'SELECT count(*) FROM (SELECT FROM "{table}" LIMIT {COUNTED_ROWS}) AS c')  # noqa: S608 (a name of the model)
    )
    row = (
        await connection.execute(
            sa.text(
                "SELECT sum(pg_total_relation_size(c.oid)),"
                " sum(CASE WHEN c.reltuples > 0 THEN c.reltuples ELSE pg_stat_get_live_tuples(c.oid) END)"
                " FROM pg_class c WHERE c.oid = CAST(:table AS regclass)"
                " OR c.oid IN (SELECT relid FROM pg_partition_tree(CAST(:table AS regclass)))"
            ),
            {"table": table},
        )
    ).one()
    estimated = (counted or 0) >= COUNTED_ROWS
    rows = max(int(row[1] or 0), COUNTED_ROWS) if estimated else int(counted or 0)
    return TableSize(table, kind.value, rows, estimated, int(row[0] or 0))


async def _orphans(connection: AsyncConnection) -> dict[str, int]:
    """Rows that were only named so far, by table."""
    rows = await connection.execute(
        sa.text("SELECT table_name, count(*) FROM orphans GROUP BY table_name ORDER BY table_name")
    )
    return {row[0]: row[1] for row in rows}
