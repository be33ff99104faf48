"""The doctor's look into the database: migrations, partitions, and what piles up."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import sqlalchemy as sa

from worker import families
from worker.errors import Misconfigured
from worker.operations import replication_checks, server_checks, tenancy_checks
from worker.operations.findings import Finding, mend, note, ok
from worker.operations.overview import outbox_state, unresolved_letters
from worker.operations.retention_policy import Policy, policies
from worker.settings import Settings
from worker.store.database import Database
from worker.store.foreign_keys import checked_at_once
from worker.store.migrations import applied_versions
from worker.store.operational import schema_versions
from worker.store.partitions import (
    COUNTED_ROWS,
    Month,
    Partition,
    PartitionStatus,
    month_of,
    partition_status,
)
from worker.store.reconciliation import Chosen, look

_MIGRATE = "Run 'worker migrate' (or 'alembic upgrade head') with a role that owns the tables."
_MAINTAIN = "Run 'worker maintain', and let a timer run it every day."


async def examine(database: Database, settings: Settings) -> list[Finding]:
    """Every finding about the database, which is reachable. Raises as `Database.connection` does."""
    async with database.connection() as connection:
        findings = await server_checks.examine(connection)
        findings += await replication_checks.examine(connection)
        applied = await applied_versions(connection)
        findings.append(judge_migrations(families.required_revisions(), applied))
        if families.required_revisions() - applied:
            return findings
        findings.append(await _foreign_keys(database))
        findings.append(await server_checks.examine_privileges(connection))
        findings += await tenancy_checks.examine(connection)
        status = await partition_status(connection)
        findings += judge_partitions(status, Month.of(datetime.now(UTC)))
        installed: datetime = (
            await connection.execute(sa.select(sa.func.min(schema_versions.c.applied_at)))
        ).scalar_one()
        findings.append(judge_window(status, Month.of(installed)))
        findings.append(judge_retention(settings, status, datetime.now(UTC)))
        waiting = await outbox_state(connection)
        findings.append(
            judge_outbox(waiting.rows, waiting.oldest_seconds, settings.outbox_sweep_after)
        )
        letters = await unresolved_letters(connection)
        findings.append(await _ledger(database))
        findings.append(judge_letters({(one.family, one.reason): one.count for one in letters}))
    return findings


def judge_migrations(required: set[str], applied: set[str]) -> Finding:
    """Whether the database has the tables that this version needs."""
    absent = required - applied
    if absent:
        return mend("migrations", f"missing: {', '.join(sorted(absent))}", _MIGRATE)
    return ok("migrations", f"applied up to {max(applied)}")


async def _foreign_keys(database: Database) -> Finding:
    async with database.transaction() as driver:
        return judge_foreign_keys(await checked_at_once(driver, families.plan().facts.values()))


def judge_foreign_keys(mending: Sequence[str]) -> Finding:
    """Whether rows may be written before the entities that they name."""
    if mending:
        return mend(
            "foreign keys",
            f"{len(mending)} are checked before the rows that they name are written: no worker starts",
            f"As the owner of the tables, run {'; '.join(mending)}.",
        )
    return ok("foreign keys", "those to entities wait for the commit")


def judge_partitions(status: Iterable[PartitionStatus], month: Month) -> list[Finding]:
    """Whether the coming months have partitions, and what lies in the default ones."""
    findings = []
    soon = (month, month.plus(1))
    for table in status:
        urgent = [one for one in table.missing if one in soon]
        if urgent:
            findings.append(
                mend(
                    "partitions", f"{table.table} has no partition for {_months(urgent)}", _MAINTAIN
                )
            )
        elif table.missing:
            findings.append(
                note(
                    "partitions",
                    f"{table.table} has none yet for {_months(table.missing)}",
                    _MAINTAIN,
                )
            )
        if table.default_rows:
            many = "or more " if table.default_rows >= COUNTED_ROWS else ""
            findings.append(
                note(
                    "partitions",
                    f"{table.default_rows} {many}rows of {table.table} lie in its default partition: keys of months "
                    "without a partition, or keys that are no UUIDv7",
                    f"Ask publishers for UUIDv7 keys. {_MAINTAIN}",
                )
            )
    return findings or [ok("partitions", "every partitioned table has its months")]


def _months(months: Sequence[Month]) -> str:
    named = [f"{month.year}-{month.number:02}" for month in months]
    return named[0] if len(named) == 1 else f"{named[0]} to {named[-1]}"


def judge_window(status: Iterable[PartitionStatus], installed: Month) -> Finding:
    """For how long a repeated message is recognised: as long as its row is kept."""
    shortened = {
        table.table: first
        for table in status
        if (first := _first_month(table.partitions)) is not None and first > installed
    }
    if not shortened:
        return ok(
            "idempotency", "no month was dropped: a repeated message is recognised without limit"
        )
    listed = ", ".join(
        f"{table} {month.year}-{month.number:02}" for table, month in shortened.items()
    )
    return note(
        "idempotency",
        f"older months were dropped; a repeated message is recognised only if its key is from: {listed} on",
        "Let nobody publish or replay messages that are older.",
    )


def judge_retention(
    settings: Settings, status: Iterable[PartitionStatus], now: datetime
) -> Finding:
    """How long rows are kept and with them the memory of their messages, and whether what is due can leave."""
    try:
        chosen = policies(settings.retention)
    except Misconfigured as error:
        return mend("retention", str(error), "Correct it: 'worker maintain' does nothing before.")
    limits = {name: one for name, one in chosen.items() if one.active is not None}
    told = ", ".join(f"{name} {one.active}" for name, one in limits.items()) or "none"
    due = [
        table.table
        for table in status
        if (one := limits.get(table.table)) is not None and one.archived and _due(table, one, now)
    ]
    if due and not settings.archive:
        return note(
            "retention",
            f"months of {', '.join(due)} are old enough to be archived, and stay: WORKER_ARCHIVE names no folder",
            f"Set WORKER_ARCHIVE for 'worker maintain', or {', '.join(f'{name}=keep' for name in due)} in WORKER_RETENTION.",
        )
    return ok(
        "retention",
        f"rows leave their table after: {told}; until then at least a repeated message of a fact is recognised, that of"
        " an entity as long as lifecycle_events are kept",
    )


def _due(table: PartitionStatus, policy: Policy, now: datetime) -> bool:
    """Whether a month with a partition is old enough to leave."""
    months = [month for one in table.partitions if (month := month_of(one)) is not None]
    return any(policy.active and one.plus(1).start <= policy.active.before(now) for one in months)


def _first_month(partitions: Iterable[Partition]) -> Month | None:
    """The first month that a table has a partition for."""
    first = min((one.bounds[0] for one in partitions if one.bounds), default=None)
    if first is None:
        return None
    return Month.of(datetime.fromtimestamp((first.int >> 80) / 1000, UTC))


def judge_outbox(rows: int, oldest_seconds: float | None, sweep_after: float) -> Finding:
    """Whether confirmations are stuck."""
    if oldest_seconds is not None and oldest_seconds > 3 * sweep_after:
        return mend(
            "outbox",
            f"{rows} transactions are unconfirmed, the oldest for {oldest_seconds:.0f} s",
            "Start a worker; if one runs, look in its log for 'relay' and 'sweep' and whether RabbitMQ takes publishes.",
        )
    return ok("outbox", f"{rows} transactions wait for their confirmation" if rows else "empty")


async def _ledger(database: Database) -> Finding:
    missing = doubled = 0
    async for account in look(database, Chosen(), most_ranges=0, letters=False):
        missing += account.missing.count
        doubled += account.doubled.count
    return judge_ledger(missing, doubled)


def judge_ledger(missing: int, doubled: int) -> Finding:
    """Whether numbered events are missing or doubled."""
    if not (missing or doubled):
        return ok("loss ledger", "no numbered event is missing or doubled")
    return note(
        "loss ledger",
        f"{missing} numbered events are not there (lost, or on their way), {doubled} are doubled",
        "'worker reconcile' waits for what is on its way and names the others.",
    )


def judge_letters(counts: dict[tuple[str, str], int]) -> Finding:
    """How many dead letters wait for a person."""
    if not counts:
        return ok("dead letters", "none is unresolved")
    listed = ", ".join(f"{family} {reason} {n}" for (family, reason), n in counts.items())
    return note(
        "dead letters",
        f"{sum(counts.values())} are unresolved ({listed})",
        "Look at them with 'worker dead-letters list', then replay, edit or discard them.",
    )
