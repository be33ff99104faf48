"""Monthly partitions of the high-volume facts, by the time inside their UUIDv7 key.

Owns months, their bounds and names, and adding a month beside writers. Promises that no row is ever refused or lost:
what no month takes lies in the default partition, and moves when its month is added.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
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

_PARTITION = re.compile(
    r"(?P<table>.+)_(?:y(?P<year>\d{4})m(?P<month>\d{2})(?:_retiring)?|default)"
)
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
    def start(self) -> datetime:
        """When it begins."""
        return datetime(self.year, self.number, 1, tzinfo=UTC)

    @property
    def first_key(self) -> UUID:
        """The smallest UUID whose first 48 bits are a millisecond of this month."""
        return UUID(int=int(self.start.timestamp()) * 1000 << 80)

    def __str__(self) -> str:
        return f"{self.year:04}-{self.number:02}"

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
        default = next((one.name for one in partitions if one.bounds is None), None)
        rows = await _count(connection, default) if default else 0
        missing = tuple(m for m in months_from(now, months_ahead) if not _covered(m, partitions))
        status.append(PartitionStatus(table.name, partitions, missing, rows))
    return status


async def _count(connection: AsyncConnection, partition: str) -> int:
    counted = f'(SELECT FROM "{partition}" LIMIT {COUNTED_ROWS})'
    rows = await connection.scalar(sa.text(f"SELECT count(*) FROM {counted} AS c"))  # noqa: S608 (a name of the model)
    return int(rows or 0)


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
                if await add_month(connection, table, month):
                    added.append(month.partition_of(table.name))
    return added


async def add_month(
    connection: AsyncConnection,
    table: sa.Table,
    month: Month,
    fill: Callable[[str], Awaitable[None]] | None = None,
) -> bool:
    """Add one month inside the open transaction; False where it is there.

    `fill` puts rows of the month into the new table, from an archive; they go before rows of the default partition.
    """
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
    check = f"CONSTRAINT {_MONTH} CHECK"
    copy = _copy_sql(table, default, new, within) if default else "SELECT"
    await run(f'CREATE TABLE "{new}" (LIKE "{table.name}" INCLUDING ALL, {check} ({within}))')
    await (fill(new) if fill else run(copy))
    await _lock(connection, table)
    if default:
        if not fill:
            await run(_forget_sql(table, default, new))
        await run(copy)
        async with deletable(run, table, default):
            await run(f'DELETE FROM "{default}" WHERE {within}')  # noqa: S608 (names of the model)
        await run(f'ALTER TABLE "{default}" ADD {check} (NOT ({within})) NOT VALID')
        await run(f'ALTER TABLE "{default}" VALIDATE CONSTRAINT {_MONTH}')
    bounds = f"FOR VALUES FROM ('{first}') TO ('{end}')"
    await run(f'ALTER TABLE "{table.name}" ATTACH PARTITION "{new}" {bounds}')
    await run(f"SELECT secure_table('\"{new}\"'), grant_table('\"{new}\"')")
    for name in filter(None, (new, default)):
        await run(f'ALTER TABLE "{name}" DROP CONSTRAINT {_MONTH}')
    if table.info.get("append_only"):  # what refuses UPDATE and DELETE came with ATTACH
        await run(
            f'CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON "{new}" EXECUTE FUNCTION refuse_change()'
        )
    return True


@asynccontextmanager
async def deletable(
    run: Callable[[str], Awaitable[object]], table: sa.Table, partition: str
) -> AsyncIterator[None]:
    """Let rows of an append-only table be moved out of a partition, inside the open transaction.

    Only the table's owner can; nobody else sees it, since the triggers are off in this transaction alone, and others wait.
    """
    switch = f'ALTER TABLE "{partition}" {{}} TRIGGER refuse_change'
    if table.info.get("append_only"):
        await run(switch.format("DISABLE"))
    yield
    if table.info.get("append_only"):
        await run(switch.format("ENABLE"))


_MONTH = "ck_partition_month"
"""The CHECK that spares ATTACH its own look at the rows, there only while a month is added."""


async def _lock(connection: AsyncConnection, table: sa.Table) -> None:
    """Keep writers out until the transaction ends: first of the table, then of those that it names, as they lock them.

    ATTACH would lock less, but a writer that has chosen the default partition for a row, and waits for it, would then
    find the row refused there.
    """
    for name in (table.name, *parents_of(table)):
        await connection.exec_driver_sql(f'LOCK TABLE ONLY "{name}" IN SHARE ROW EXCLUSIVE MODE')


def parents_of(table: sa.Table) -> list[str]:
    """The tables that foreign keys name, in the order in which writers lock them."""
    named = {key.column.table.name for key in table.foreign_keys} - {table.name}
    return [one.name for one in table.metadata.sorted_tables if one.name in named]


def _copy_sql(table: sa.Table, default: str, new: str, within: str) -> str:
    """Copy the month's rows that are not copied yet. No row is locked: a writer that waits for one would deadlock."""
    columns = ", ".join(f'"{column.name}"' for column in table.columns if column.computed is None)
    return (
        f'INSERT INTO "{new}" ({columns}) SELECT {columns} FROM "{default}" WHERE {within}'  # noqa: S608 (names of the model)
        " ON CONFLICT DO NOTHING"
    )


def _forget_sql(table: sa.Table, default: str, new: str) -> str:
    """Drop copies of rows that were deleted since, with their owner for example."""
    same = " AND ".join(f'd."{c.name}" = n."{c.name}"' for c in table.primary_key.columns)
    return f'DELETE FROM "{new}" n WHERE NOT EXISTS (SELECT FROM "{default}" d WHERE {same})'  # noqa: S608 (names of the model)


def _bounds(expression: str) -> tuple[UUID, UUID] | None:
    found = _BOUNDS.fullmatch(expression)
    return (UUID(found["first"]), UUID(found["end"])) if found else None


def month_of(partition: Partition) -> Month | None:
    """The month of a partition; None where it is no month's."""
    if partition.bounds is None:
        return None
    month = Month.of(datetime.fromtimestamp((partition.bounds[0].int >> 80) / 1000, UTC))
    return month if month.bounds == partition.bounds else None


def _covered(month: Month, partitions: tuple[Partition, ...]) -> bool:
    """Whether some partition holds keys of a month, whatever its name."""
    first, end = month.bounds
    return any(one.bounds and one.bounds[0] < end and first < one.bounds[1] for one in partitions)
