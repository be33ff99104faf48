"""Keeping the tables in order: months for the partitioned ones, one row an epoch for the loss ledger, seals for the audit log, copies of checkpoints, retirement of what is old.

Promises to be safe to run twice, by two at once and beside running workers.
"""

from dataclasses import dataclass
from functools import partial

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from worker.operations import checkpoints
from worker.operations.audit_seals import seal, sealable
from worker.operations.retention_policy import policies
from worker.operations.retirement import retire
from worker.operations.retiring import Retired
from worker.operations.services import open_database, patient, require_migrations
from worker.patience import patiently
from worker.settings import Settings
from worker.store.database import Database, translate
from worker.store.loss_ledger import compact, foldable
from worker.store.partitions import (
    ensure_partitions,
    partition_status,
    partitioned_tables,
)

_WAIT_FOR_WRITERS = 60.0
"""Seconds to try again for, where writers hold a table for longer than adding a month may wait."""


@dataclass(frozen=True)
class Upkeep:
    """What was done, or would be done, for one table."""

    table: str
    added: tuple[str, ...]
    months: int
    """Months with a partition from the present one on, those added included."""
    default_rows: int
    """Rows in the default partition afterwards (or now, in a dry run), counted up to a limit."""


@dataclass(frozen=True)
class Maintained:
    """What was done, or would be done."""

    tables: list[Upkeep]
    ledger_rows_folded: int
    """Rows of the loss ledger that became part of another."""
    audit_rows_sealed: int
    """Rows of the audit log that went into its chains of seals."""
    checkpoints_copied: int | None
    """Checkpoints that were copied into the archive; None where no archive is set."""
    retired: list[Retired]
    """What left its table because it was old enough, by table."""


async def maintain(settings: Settings, *, months_ahead: int, dry_run: bool) -> Maintained:
    """Add the months that the partitioned tables lack, fold the loss ledger, seal the audit log's hours that have passed, copy checkpoints where an archive is set, retire what is old enough."""
    policies(settings.retention)  # a wrong one is told before anything is done
    async with open_database(patient(settings), wait=settings.start_timeout) as database:
        await require_migrations(database, settings)
        lacking = await _lacking(database, months_ahead)
        if dry_run:
            added = lacking
        else:
            added = {
                table.name: await _ensure(database, table, months_ahead)
                for table in partitioned_tables()
            }
        async with database.connection() as connection:
            status = await partition_status(connection, months_ahead=months_ahead)
        folded = await _fold_ledger(database, dry_run=dry_run)
        sealed = await sealable(database) if dry_run else (await seal(database)).rows
        copied = await _copy_checkpoints(database, settings, dry_run=dry_run)
        retired = await retire(database, settings.retention, settings.archive, dry_run=dry_run)
    tables = [
        Upkeep(
            table=table.table,
            added=tuple(added[table.table]),
            months=months_ahead + 1 - (0 if dry_run else len(table.missing)),
            default_rows=table.default_rows,
        )
        for table in status
    ]
    return Maintained(tables, folded, sealed, copied, retired)


async def _fold_ledger(database: Database, *, dry_run: bool) -> int:
    if not dry_run:
        return await compact(database)
    async with database.transaction() as connection:
        return await foldable(connection)


async def _copy_checkpoints(database: Database, settings: Settings, *, dry_run: bool) -> int | None:
    if not settings.checkpoint_archive:
        return None
    folder = checkpoints.archive_folder(settings.checkpoint_archive)
    return await (
        checkpoints.waiting(database) if dry_run else checkpoints.archive(database, folder)
    )


async def _lacking(database: Database, months_ahead: int) -> dict[str, list[str]]:
    """The partitions that would be added, by table."""
    async with database.connection() as connection:
        status = await partition_status(connection, months_ahead=months_ahead)
    return {
        table.table: [month.partition_of(table.table) for month in table.missing]
        for table in status
    }


async def _ensure(database: Database, table: sa.Table, months_ahead: int) -> list[str]:
    """Add a table's months, one after another, so that what is added is known whatever happens to the next.

    Where writers do not let go of the table, it is tried again. Raises Unavailable if they never do.
    """
    added: list[str] = []
    for ahead in range(months_ahead + 1):
        added += await patiently(_WAIT_FOR_WRITERS, partial(_ensure_once, database, table, ahead))
    return added


async def _ensure_once(database: Database, table: sa.Table, months_ahead: int) -> list[str]:
    try:
        async with database.engine.connect() as connection:
            return await ensure_partitions(connection, table, months_ahead)
    except (DBAPIError, OSError) as error:
        raise translate(error) from error
