"""A month that comes back out of the archive: every row with all its columns, as it was, in its partition again.

The rows are loaded into a table of this transaction, looked at there, and put into a new month as `maintain` adds one,
or into the table where it has no months. Promises all or nothing, the same when it is run twice, and that nothing comes
back which was erased meanwhile: rows whose owner is gone stay in the archive, and so do rows that were erased themselves.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.errors import Misconfigured, WorkerError
from worker.operations import audit_retirement, restored_rows
from worker.operations.archive_files import Archive, Part, parse_month
from worker.operations.archive_rows import columns_of, differing, insert_sql, portions
from worker.operations.retention_policy import retirable_tables
from worker.operations.retirement import alone
from worker.operations.retiring import WAIT_FOR_WRITERS
from worker.operations.retiring_months import left_over
from worker.patience import patiently
from worker.store.database import Database
from worker.store.partitions import LOCK_TIMEOUT, Month, add_month, key_column

KEEP_DAYS = 7
"""How many days a restored month stays before `maintain` retires it again."""

STAGING = "restored_rows"
"""The table of the transaction that rows are loaded into."""


@dataclass
class Restored:
    """What was restored, or would be."""

    table: str
    month: str
    parts: list[str]
    rows: int = 0
    """Rows that came back."""
    present: int = 0
    """Rows whose key is in the table: those stay as they are."""
    differing: int = 0
    """Of these, rows that say something else than the archive: they came, or changed, after it was made."""
    erased: int = 0
    """Rows that were erased, or whose owner was, since they were archived."""
    placeholders: int = 0
    """Owners that are named again, because an audit trail needs them."""
    held_until: str | None = None


async def restore(
    database: Database,
    archive: Archive,
    name: str,
    month_text: str,
    *,
    keep_days: int = KEEP_DAYS,
    dry_run: bool = False,
) -> Restored:
    """Bring a month back. Raises Misconfigured where there is none, and WorkerError where it does not fit or is damaged."""
    table = _table(name)
    month = parse_month(month_text)
    parts = archive.parts(name, month)
    if not parts:
        raise Misconfigured(
            f"the archive holds nothing of {name} {month}: see 'worker archive list'"
        )
    async with alone(database):
        if table.dialect_options["postgresql"]["partition_by"]:
            await _nothing_left_over(database, name, month)
        until = datetime.now(UTC) + timedelta(days=keep_days)
        if not dry_run:
            for part in parts:
                archive.hold(part, until)

        async def step() -> Restored:
            return await _restore(database, archive, table, month, parts, dry_run=dry_run)

        done = await patiently(WAIT_FOR_WRITERS, step)
        done.held_until = None if dry_run else until.isoformat(timespec="seconds")
    return done


def _table(name: str) -> sa.Table:
    for table in retirable_tables():
        if table.name == name:
            return table
    known = ", ".join(sorted(str(table.name) for table in retirable_tables()))
    raise Misconfigured(f"there is no table {name!r} that is archived: {known}")


async def _nothing_left_over(database: Database, name: str, month: Month) -> None:
    if month in await left_over(database, name):
        raise Misconfigured(
            f"a run of 'worker maintain' ended while it retired {name} {month}: run it again first"
        )


async def _restore(
    database: Database,
    archive: Archive,
    table: sa.Table,
    month: Month,
    parts: list[Part],
    *,
    dry_run: bool,
) -> Restored:
    done = Restored(str(table.name), str(month), [part.file for part in parts])
    async with database.connection() as connection:
        await connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        raw: Any = (await connection.get_raw_connection()).driver_connection
        await _load(raw, archive, table, parts)
        done.present, done.differing = await restored_rows.leave_out_present(raw, table, STAGING)
        done.erased = await restored_rows.leave_out_erased(raw, table, STAGING)
        done.placeholders = await restored_rows.name_owners(raw, table, STAGING)
        done.rows = await raw.fetchval(f"SELECT count(*) FROM {STAGING}")  # noqa: S608 (a constant)
        if dry_run:
            await connection.rollback()
        elif done.rows:
            await _put(connection, raw, table, month)
    return done


async def _load(
    raw: asyncpg.Connection, archive: Archive, table: sa.Table, parts: list[Part]
) -> None:
    """Every row of the archive, once, in a table that only this transaction sees; of two with one key the first stays."""
    columns = await columns_of(raw, str(table.name))
    await raw.execute(
        f'CREATE TEMP TABLE {STAGING} (LIKE "{table.name}" INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING INDEXES)'
        " ON COMMIT DROP"
    )
    for part in parts:
        if unlike := differing(part.columns, columns):
            raise WorkerError(
                f"{part.file} was archived from another schema (migration {part.revision}) and does not fit: these columns"
                f" differ (then, now): {unlike}"
            )
        insert = insert_sql(str(table.name), STAGING, columns)
        for lines in portions(archive.lines(part)):
            await raw.execute(insert, lines)
    await raw.execute(f"ANALYZE {STAGING}")


async def _put(
    connection: AsyncConnection, raw: asyncpg.Connection, table: sa.Table, month: Month
) -> None:
    """Into a month of its own what belongs there, and the rest into the table."""
    names = ", ".join(f'"{name}"' for name in await columns_of(raw, str(table.name)))
    rows = f"SELECT {names} FROM {STAGING}"  # noqa: S608 (names of the model)
    if table.dialect_options["postgresql"]["partition_by"]:
        first, end = month.bounds
        key = key_column(table)
        within = f"\"{key}\" >= '{first}' AND \"{key}\" < '{end}'"

        async def fill(new: str) -> None:
            await connection.exec_driver_sql(f'INSERT INTO "{new}" ({names}) {rows} WHERE {within}')

        belongs = await raw.fetchval(f"SELECT EXISTS ({rows} WHERE {within})")
        if belongs and await add_month(connection, table, month, fill):
            rows = f"{rows} WHERE NOT ({within})"
    await raw.execute(f'INSERT INTO "{table.name}" ({names}) {rows} ON CONFLICT DO NOTHING')
    if table.info.get("append_only"):
        await audit_retirement.reopen_seals(raw, STAGING)
