"""Months that leave a partitioned table: detached, archived, dropped.

Promises that writers wait for a moment, while a month is detached or dropped, and never while it is copied; and that a
run which ends in between leaves the month as a table of its own, `…_retiring`, from which the next run goes on.
"""

from functools import partial

from worker.operations import audit_retirement
from worker.operations.archive_files import PartWriter
from worker.operations.archive_rows import line_sql, write_rows
from worker.operations.retiring import WAIT_FOR_WRITERS, Retiring
from worker.patience import patiently
from worker.store.database import Database
from worker.store.partitions import (
    LOCK_TIMEOUT,
    Month,
    month_of,
    parents_of,
    partitions_of,
)

_RETIRING = "_retiring"

_LEFT_OVER = """
SELECT relname FROM pg_class WHERE relkind = 'r' AND NOT relispartition
    AND relnamespace = current_schema()::regnamespace
    AND relname ~ ('^' || $1::text || '_y[0-9]{4}m[0-9]{2}_retiring$')
ORDER BY relname"""


async def old_months(job: Retiring, held: set[str]) -> list[Month]:
    """Months with a partition that are old enough as a whole, but for those that are held."""
    async with job.database.connection() as connection:
        partitions = await partitions_of(connection, job.table)
    months = [month for one in partitions if (month := month_of(one)) is not None]
    return [one for one in months if one.plus(1).start <= job.cutoff and str(one) not in held]


async def left_over(database: Database, table: str) -> list[Month]:
    """Months that an earlier run detached and did not come to drop."""
    async with database.transaction() as connection:
        found = await connection.fetch(_LEFT_OVER, table)
    names = [row["relname"].removesuffix(_RETIRING)[-7:] for row in found]
    return [Month(int(name[:4]), int(name[5:])) for name in names]


async def retire_month(job: Retiring, month: Month) -> None:
    """Let a month leave its table, if nothing speaks against it."""
    name = month.partition_of(str(job.table.name))
    async with job.database.transaction() as connection:
        if not await job.may_leave(connection, name):
            return
    if job.dry_run:
        await _count(job, name, month)
    elif await patiently(WAIT_FOR_WRITERS, partial(_detach, job, name)):
        await finish_month(job, month)


async def finish_month(job: Retiring, month: Month) -> None:
    """Archive a month that is detached, and drop it."""
    name = month.partition_of(str(job.table.name)) + _RETIRING
    if job.dry_run:
        await _count(job, name, month)
        return
    rows = await patiently(WAIT_FOR_WRITERS, partial(_archive, job, name, month))
    await patiently(WAIT_FOR_WRITERS, partial(_drop, job, name))
    job.done.rows += rows
    job.done.months.append(str(month))


async def _count(job: Retiring, name: str, month: Month) -> None:
    async with job.database.transaction() as connection:
        job.done.rows += await connection.fetchval(f'SELECT count(*) FROM "{name}"')  # noqa: S608 (a name of the model)
    job.done.months.append(str(month))


async def _detach(job: Retiring, name: str) -> bool:
    """Take a month out of its table; False where a row came meanwhile that has to stay.

    The table is locked first and its parents next, as writers do. An erasure goes the other way; where the two meet, one
    of them is told to try again.
    """
    table = job.table.name
    async with job.database.transaction() as connection:
        run = connection.execute
        await run(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        await run(f"SELECT pg_advisory_xact_lock(hashtext('partitions'), hashtext('{table}'))")
        await run(f'LOCK TABLE ONLY "{table}" IN ACCESS EXCLUSIVE MODE')
        for parent in parents_of(job.table):
            await run(f'LOCK TABLE ONLY "{parent}" IN SHARE ROW EXCLUSIVE MODE')
        if job.append_only:
            if await audit_retirement.too_young(connection, name, job.cutoff):
                return False
            await audit_retirement.retire_seals(connection, name)
        await run(f'ALTER TABLE "{table}" DETACH PARTITION "{name}"')
        await run(f'ALTER TABLE "{name}" RENAME TO "{name}{_RETIRING}"')
    return True


async def _archive(job: Retiring, name: str, month: Month) -> int:
    """Write all rows of a detached month into the archive, where the policy says so; how many there are."""
    async with job.database.transaction() as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        if job.archive is None or not job.policy.archived:
            return int(await connection.fetchval(f'SELECT count(*) FROM "{name}"'))  # noqa: S608 (a name of the model)
        line = await line_sql(connection, name, "p")
        sql = f'SELECT NULL::tid AS place, {line} AS line FROM "{name}" AS p ORDER BY {job.key}'  # noqa: S608 (names of the model)
        writer = PartWriter(job.archive, str(job.table.name), month)
        try:
            await write_rows(connection, sql, writer)
            if writer.rows:
                await job.finish(connection, writer)
        finally:
            writer.discard()
        return writer.rows


async def _drop(job: Retiring, name: str) -> None:
    """Drop a month that is archived; its foreign keys make PostgreSQL lock the tables that they name, for a moment."""
    async with job.database.transaction() as connection:
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        for parent in parents_of(job.table):
            await connection.execute(f'LOCK TABLE ONLY "{parent}" IN ACCESS EXCLUSIVE MODE')
        await connection.execute(f'DROP TABLE "{name}"')
