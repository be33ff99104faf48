"""Monthly partitions of the high-volume facts, by the time inside their UUIDv7 key.

Owns months, their bounds and names, and adding a month beside writers. Promises that no row is ever refused or lost:
what no month takes lies in the default partition, and moves when its month is added.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.store.schema import metadata

MONTHS_AHEAD = 12
"""How many months after the present one have a partition."""

LOCK_TIMEOUT = "5s"
"""Longest wait for writers; they queue behind this wait, so it is short, and the caller tries again later."""

_PARTITION = re.compile(r"(?P<table>.+)_(?:y(?P<year>\d{4})m(?P<month>\d{2})|default)")
_BOUNDS = re.compile(
    r"FOR VALUES FROM \('(?P<first>[0-9a-f-]{36})'\) TO \('(?P<end>[0-9a-f-]{36})'\)"
)


@dataclass(frozen=True, order=True)
class Month:
    """A calendar month in UTC."""

    year: int
    number: int

    @classmethod
    def of(cls, moment: datetime) -> "Month":
        """The month of a moment (aware)."""
        utc = moment.astimezone(UTC)
        return cls(utc.year, utc.month)

    def plus(self, months: int) -> "Month":
        """The month so many months later."""
        years, index = divmod(self.number - 1 + months, 12)
        return Month(self.year + years, index + 1)

    @property
    def first_key(self) -> UUID:
        """The smallest UUID whose first 48 bits are a millisecond of this month."""
        start = datetime(self.year, self.number, 1, tzinfo=UTC)
        return UUID(int=int(start.timestamp()) * 1000 << 80)

    @property
    def bounds(self) -> tuple[UUID, UUID]:
        """The keys of this month: from the first, up to but without the second."""
        return self.first_key, self.plus(1).first_key

    def partition_of(self, table: str) -> str:
        """The name of a table's partition of this month."""
        return f"{table}_y{self.year:04}m{self.number:02}"


@dataclass(frozen=True)
class Partition:
    """A partition of months (its bounds), or the default one (None)."""

    name: str
    bounds: tuple[UUID, UUID] | None


@dataclass(frozen=True)
class PartitionStatus:
    """What there is of one partitioned table."""

    table: str
    partitions: tuple[Partition, ...]
    missing: tuple[Month, ...]
    """Months from the present one to `MONTHS_AHEAD` that have no partition."""
    default_rows: int
    """Rows in the default partition, counted up to `COUNTED_ROWS`."""


COUNTED_ROWS = 10_000
"""Where counting the rows of a default partition stops."""


def is_partition(name: str) -> bool:
    """Whether a table's name is that of a partition of a table of the model."""
    found = _PARTITION.fullmatch(name)
    return found is not None and found["table"] in {table.name for table in partitioned_tables()}


def partitioned_tables() -> tuple[sa.Table, ...]:
    """Every table of the model that is partitioned by month, parents first."""
    return tuple(
        table
        for table in metadata.sorted_tables
        if table.dialect_options["postgresql"]["partition_by"]
    )


def key_column(table: sa.Table) -> str:
    """The column by which a table is partitioned: the first of its primary key."""
    return next(iter(table.primary_key.columns)).name


def months_from(moment: datetime, ahead: int) -> Iterator[Month]:
    """The month of a moment and so many after it."""
    month = Month.of(moment)
    return (month.plus(later) for later in range(ahead + 1))


async def partitions_of(connection: AsyncConnection, table: sa.Table) -> tuple[Partition, ...]:
    """The partitions that are attached to a table, in key order, the default one last."""
    rows = await connection.execute(
        sa.text(
            "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid)"
            " FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = CAST(:table AS regclass) AND c.relispartition"
        ),
        {"table": table.name},
    )
    found = [Partition(name, _bounds(expression)) for name, expression in rows]
    return tuple(sorted(found, key=lambda one: one.bounds or (UUID(int=2**128 - 1),)))


async def partition_status(
    connection: AsyncConnection, *, months_ahead: int = MONTHS_AHEAD
) -> list[PartitionStatus]:
    """What partitions there are, which are missing, and what lies in the default ones."""
    now: datetime = (await connection.execute(sa.select(sa.func.now()))).scalar_one()
    status = []
    for table in partitioned_tables():
        partitions = await partitions_of(connection, table)
        counted = f'(SELECT FROM "{table.name}_default" LIMIT {COUNTED_ROWS})'  # noqa: S608 (a name of the model)
        rows = await connection.scalar(sa.text(f"SELECT count(*) FROM {counted} AS counted"))
        missing = tuple(m for m in months_from(now, months_ahead) if not _covered(m, partitions))
        status.append(PartitionStatus(table.name, partitions, missing, int(rows or 0)))
    return status


async def ensure_partitions(
    connection: AsyncConnection, table: sa.Table, months_ahead: int = MONTHS_AHEAD
) -> list[str]:
    """Add the months that a table lacks, from the present one on; the names of those added.

    The connection must not be in a transaction: each month is added in one of its own. Safe to run twice, by two at
    once, and beside writers, who wait for it at the end of each month's transaction only.
    """
    async with connection.begin():
        now: datetime = (await connection.execute(sa.select(sa.func.now()))).scalar_one()
        present = await partitions_of(connection, table)
    added = []
    for month in months_from(now, months_ahead):
        if not _covered(month, present):
            async with connection.begin():
                if await _add(connection, table, month):
                    added.append(month.partition_of(table.name))
    return added


async def _add(connection: AsyncConnection, table: sa.Table, month: Month) -> bool:
    """Add one month inside the open transaction; False where another session has just done it."""
    run = connection.exec_driver_sql
    await run(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    await run(f"SELECT pg_advisory_xact_lock(hashtext('partitions'), hashtext('{table.name}'))")
    partitions = await partitions_of(connection, table)
    if _covered(month, partitions):
        return False
    default = next((one.name for one in partitions if one.bounds is None), None)
    new, key = month.partition_of(table.name), key_column(table)
    first, end = month.bounds
    within = f"\"{key}\" >= '{first}' AND \"{key}\" < '{end}'"
    await run(
        f'CREATE TABLE "{new}" (LIKE "{table.name}" INCLUDING ALL, CONSTRAINT {_MONTH} CHECK ({within}))'
    )
    if default is not None:
        await _empty_default(connection, table, default, new, within)
    await run(
        f"ALTER TABLE \"{table.name}\" ATTACH PARTITION \"{new}\" FOR VALUES FROM ('{first}') TO ('{end}')"
    )
    await run(f'ALTER TABLE "{new}" DROP CONSTRAINT {_MONTH}')
    if default is not None:
        await run(f'ALTER TABLE "{default}" DROP CONSTRAINT {_MONTH}')
    return True


_MONTH = "ck_partition_month"
"""The CHECK that spares ATTACH its own look at the rows, there only while a month is added."""


async def _empty_default(
    connection: AsyncConnection, table: sa.Table, default: str, new: str, within: str
) -> None:
    """Move a month's rows out of the default partition, and prove that none is left.

    Most rows move beside writers. Then the tables are locked, those that foreign keys name first, as writers do; what
    was written meanwhile moves too, and the CHECK holds.
    """
    run = connection.exec_driver_sql
    columns = ", ".join(f'"{column.name}"' for column in table.columns if column.computed is None)
    move = (
        f'WITH moved AS (DELETE FROM "{default}" WHERE {within} RETURNING {columns})'  # noqa: S608 (names of the model)
        f' INSERT INTO "{new}" ({columns}) SELECT {columns} FROM moved'
    )
    await run(move)
    for name in sorted({key.column.table.name for key in table.foreign_keys} - {table.name}):
        await run(f'LOCK TABLE "{name}" IN SHARE ROW EXCLUSIVE MODE')
    await run(f'ALTER TABLE "{default}" ADD CONSTRAINT {_MONTH} CHECK (NOT ({within})) NOT VALID')
    await run(move)
    await run(f'ALTER TABLE "{default}" VALIDATE CONSTRAINT {_MONTH}')


def _bounds(expression: str) -> tuple[UUID, UUID] | None:
    found = _BOUNDS.fullmatch(expression)
    return (UUID(found["first"]), UUID(found["end"])) if found else None


def _covered(month: Month, partitions: tuple[Partition, ...]) -> bool:
    """Whether some partition holds keys of a month, whatever its name."""
    first, end = month.bounds
    return any(one.bounds and one.bounds[0] < end and first < one.bounds[1] for one in partitions)
