"""One table on its way through retirement: what its policy means today, and what was done so far.

Owns the two ways of asking whether rows are old enough, and the last step of writing a part of the archive.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import asyncpg
import sqlalchemy as sa

from worker.operations import audit_retirement
from worker.operations.archive_files import Archive, PartWriter
from worker.operations.archive_rows import columns_of
from worker.operations.retention_policy import Policy
from worker.store.database import Database
from worker.store.partitions import Month

WAIT_FOR_WRITERS = 60.0
"""Seconds to try again for, where others hold what a step needs."""

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass
class Retired:
    """What left one table, or would; and of its archive what passed its time."""

    table: str
    policy: str
    months: list[str] = field(default_factory=list)
    """Months whose rows left."""
    rows: int = 0
    parts: list[str] = field(default_factory=list)
    """Files of the archive that hold them (none in a dry run)."""
    deleted: list[str] = field(default_factory=list)
    """Files of the archive that were deleted."""
    kept: list[str] = field(default_factory=list)
    """Why something that is old enough stays, in sentences."""


@dataclass(frozen=True)
class Retiring:
    """A table with a limit, and its rows that are beyond it."""

    database: Database
    archive: Archive | None
    table: sa.Table
    policy: Policy
    now: datetime
    dry_run: bool
    done: Retired

    @property
    def cutoff(self) -> datetime:
        """What is from before this moment is old enough."""
        return self.policy.active.before(self.now) if self.policy.active else _NEVER

    @property
    def partitioned(self) -> bool:
        """Whether it has a partition a month."""
        return bool(self.table.dialect_options["postgresql"]["partition_by"])

    @property
    def append_only(self) -> bool:
        """Whether its rows are guarded by triggers, and sealed."""
        return bool(self.table.info.get("append_only"))

    @property
    def place(self) -> str:
        """Where the rows lie that leave one by one: what no month's partition took."""
        return f"{self.table.name}_default" if self.partitioned else str(self.table.name)

    @property
    def key(self) -> str:
        """The columns of its key, for an order that is always the same."""
        return ", ".join(f'p."{column.name}"' for column in self.table.primary_key.columns)

    def end_of_rows(self, month: Month | None = None) -> datetime:
        """Up to when rows leave: whole months into an archive, so that it has few parts, else whole days."""
        if self.policy.archived:
            last = Month.of(self.cutoff).start
        else:
            last = self.cutoff.replace(hour=0, minute=0, second=0, microsecond=0)
        return min(last, month.plus(1).start) if month else last

    async def may_leave(
        self, connection: asyncpg.Connection, place: str, *among: object, where: str = ""
    ) -> bool:
        """Whether nothing speaks against rows' leaving; what does is told."""
        if not self.append_only:
            return True
        why = await audit_retirement.obstacle(connection, place, self.cutoff, *among, where=where)
        if why:
            self.done.kept.append(f"{place} stays: {why}")
        return why is None

    async def finish(self, connection: asyncpg.Connection, writer: PartWriter) -> None:
        """Have a part on the disk, whole, before anything is dropped."""
        columns = await columns_of(connection, str(self.table.name))
        revision = await connection.fetchval("SELECT max(version) FROM schema_versions")
        self.done.parts.append(writer.finish(columns, str(revision)).file)
