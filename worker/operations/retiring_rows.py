"""Rows that leave one by one: of tables without partitions, and what no month's partition took.

Each step is one transaction that archives rows, counts them into aggregates where there are any, and deletes just
these: a row that somebody changes meanwhile makes it begin anew. Promises that the archive has a row before it is gone.
"""

from datetime import datetime
from functools import partial
from typing import Any

import asyncpg

from worker.operations import audit_retirement
from worker.operations.archive_files import PartWriter
from worker.operations.archive_rows import line_sql, write_rows
from worker.operations.retention_policy import AGGREGATED, time_column
from worker.operations.retiring import WAIT_FOR_WRITERS, Retiring
from worker.operations.trust_aggregates import aggregate
from worker.patience import patiently
from worker.store.partitions import LOCK_TIMEOUT, Month, deletable

ROWS_OF_A_PART = 50_000
"""Most rows that are deleted in one transaction, and then the rows of one part of the archive."""

_OLD = """
SELECT date_trunc('month', "{time}", 'UTC') AS month, count(*) AS rows FROM ONLY "{place}" AS p
WHERE "{time}" < $1 {recorded} GROUP BY 1 ORDER BY 1"""

_CHOOSE = """
SELECT p.ctid AS place, {line} AS line FROM ONLY "{place}" AS p
WHERE "{time}" >= '{start}' AND "{time}" < '{end}' {recorded} ORDER BY "{time}", {key} LIMIT {limit}"""


async def old_rows(job: Retiring, held: set[str]) -> list[tuple[Month, int]]:
    """Months that have such rows, and how many, but for months that are held."""
    async with job.database.transaction() as connection:
        sql = _OLD.format(time=time_column(job.table), place=job.place, recorded=_recorded(job))
        found = await connection.fetch(sql, job.end_of_rows())
    months = [(Month.of(row["month"]), int(row["rows"])) for row in found]
    return [(month, rows) for month, rows in months if str(month) not in held]


def _recorded(job: Retiring) -> str:
    """What is sealed leaves by the time of its seal as well, whatever its publisher said of the time."""
    return f"AND p.recorded_at < '{job.cutoff.isoformat()}'" if job.append_only else ""


async def retire_rows(job: Retiring, month: Month, count: int) -> None:
    """Let the rows of a month leave, if nothing speaks against it."""
    where = 'AND p."{0}" >= $1 AND p."{0}" < $2 {1}'.format(time_column(job.table), _recorded(job))
    async with job.database.transaction() as connection:
        if not await job.may_leave(connection, job.place, *_bounds(job, month), where=where):
            return
    job.done.months.append(str(month))
    if job.dry_run:
        job.done.rows += count
        return
    rows = ROWS_OF_A_PART
    while rows == ROWS_OF_A_PART:
        rows = await patiently(WAIT_FOR_WRITERS, partial(_retire_some, job, month))
        job.done.rows += rows


def _bounds(job: Retiring, month: Month) -> tuple[datetime, datetime]:
    return month.start, job.end_of_rows(month)


async def _retire_some(job: Retiring, month: Month) -> int:
    async with job.database.transaction() as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        writer = None
        if job.archive is not None and job.policy.archived:
            writer = PartWriter(job.archive, str(job.table.name), month)
        try:
            places = await _choose(connection, job, month, writer)
            if writer and places:
                await job.finish(connection, writer)
        finally:
            if writer:
                writer.discard()
        await _delete(connection, job, places)
    return len(places)


async def _choose(
    connection: asyncpg.Connection, job: Retiring, month: Month, writer: PartWriter | None
) -> list[Any]:
    """Where the oldest rows of a month lie, written into the archive if there is one."""
    start, end = _bounds(job, month)
    sql = _CHOOSE.format(
        line=await line_sql(connection, job.place, "p") if writer else "''",
        place=job.place,
        time=time_column(job.table),
        start=start.isoformat(),
        end=end.isoformat(),
        recorded=_recorded(job),
        key=job.key,
        limit=ROWS_OF_A_PART,
    )
    if writer:
        return await write_rows(connection, sql, writer)
    return [row["place"] for row in await connection.fetch(sql)]


async def _delete(connection: asyncpg.Connection, job: Retiring, places: list[Any]) -> None:
    """Delete the rows at these places."""
    if job.table.name == AGGREGATED:
        await aggregate(connection, places)
    if job.append_only:
        await audit_retirement.retire_seals(
            connection, job.place, places, where="AND p.ctid = ANY($1::tid[])"
        )
    delete = f'DELETE FROM ONLY "{job.place}" WHERE ctid = ANY($1::tid[])'  # noqa: S608 (a name of the model)
    async with deletable(connection.execute, job.table, job.place):
        await connection.execute(delete, places)
