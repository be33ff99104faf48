"""Retirement: what is older than its policy says leaves its table, through the archive where it says so.

Promises that what is archived is on the disk and was read back before anything is dropped; that a run which ends
anywhere leaves each row in its table, in a detached one or in the archive; and that a second run finds nothing to do.
Where an archive is wanted and none is set, everything stays, and that is said.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import sqlalchemy as sa

from worker.operations.archive_files import SETTING, Archive, parse_month
from worker.operations.retention_policy import Policy, policies
from worker.operations.retiring import Retired, Retiring
from worker.operations.retiring_months import finish_month, left_over, old_months, retire_month
from worker.operations.retiring_rows import old_rows, retire_rows
from worker.store.database import Database
from worker.store.schema import metadata


@asynccontextmanager
async def alone(database: Database) -> AsyncIterator[None]:
    """Wait until nobody else retires or restores, and keep others waiting; it ends with this process, however that ends."""
    async with database.transaction() as connection:
        await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('retention'))")
        yield


async def retire(
    database: Database, retention: str, folder: str, *, dry_run: bool
) -> list[Retired]:
    """Let everything that is old enough leave; one entry for each table that has a limit, or something to say."""
    archive = Archive(folder) if folder else None
    async with alone(database):
        now = await _now(database)
        every = [
            await _retire_table(
                Retiring(
                    database, archive, metadata.tables[name], policy, now, dry_run,
                    Retired(name, str(policy)),
                )
            )
            for name, policy in policies(retention).items()
        ]  # fmt: skip
    return [one for one in every if one.policy != str(Policy()) or one.kept]


async def _retire_table(job: Retiring) -> Retired:
    name, done = str(job.table.name), job.done
    unfinished = await left_over(job.database, name) if job.partitioned else []
    if job.policy.active is None:
        done.kept += [
            f"{month} is detached, as {month.partition_of(name)}_retiring, and {name} has no limit any more: attach it"
            " again, or give it one"
            for month in unfinished
        ]
        return done
    held = _held(job)
    months = await old_months(job, held) if job.partitioned else []
    rows = await old_rows(job, held)
    if job.policy.archived and job.archive is None:
        if unfinished or months or rows:
            done.kept.append(
                f"what is old enough stays in {name}: {SETTING} names no folder to archive it in"
            )
        return done
    for month in unfinished:
        await finish_month(job, month)
    for month in months:
        await retire_month(job, month)
    for month, count in rows:
        await retire_rows(job, month, count)
    _delete_old_parts(job)
    done.months = sorted(set(done.months))
    return done


def _held(job: Retiring) -> set[str]:
    """Months that were restored and have to stay for now."""
    parts = job.archive.parts(job.done.table) if job.archive else []
    held = {part.month: part.held_until for part in parts if part.held(job.now)}
    job.done.kept += [f"{month} was restored, and is held until {held[month]}" for month in held]
    return set(held)


def _delete_old_parts(job: Retiring) -> None:
    """Delete what has passed its time in the archive as well."""
    if job.archive is None or job.policy.until is None:
        return
    end = job.policy.until.before(job.now)
    for part in job.archive.parts(job.done.table):
        if parse_month(part.month).plus(1).start <= end and not part.held(job.now):
            job.done.deleted.append(part.file)
            if not job.dry_run:
                job.archive.delete(part)


async def _now(database: Database) -> datetime:
    async with database.connection() as connection:
        now: datetime = (await connection.execute(sa.select(sa.func.now()))).scalar_one()
    return now
