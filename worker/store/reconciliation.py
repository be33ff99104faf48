"""What the loss ledger says: which numbers of a source are missing, doubled, or still in dead letters.

One statement looks, so that what it sees is of one moment; epochs come one at a time, so that memory is bounded
however many there are. It knows nothing of queues: whether what is missing is lost or on its way is asked elsewhere.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from worker.store.database import Database
from worker.store.loss_ledger import DOUBLED
from worker.store.ranges import Range

_ROWS_AT_ONCE = 200


class Epoch(NamedTuple):
    """Where numbers are counted: one run of one source of one tenant."""

    tenant: str
    source: str
    epoch: UUID


@dataclass(frozen=True)
class Chosen:
    """Which epochs to look at; nothing means every one."""

    tenant: str | None = None
    source: str | None = None
    epoch: UUID | None = None
    since: datetime | None = None
    """Only epochs of which something was recorded since."""
    upto: dict[Epoch, int] = field(default_factory=dict)
    """Only these, and the last number that each is known to have used; a larger number that was seen counts too."""
    no_further: bool = False
    """Numbers past those of `upto` are of no interest."""


@dataclass(frozen=True)
class Numbers:
    """How many numbers, and the first ranges of them."""

    count: int = 0
    ranges: tuple[Range, ...] = ()
    ranges_left_out: int = 0


@dataclass(frozen=True)
class Account:
    """What is known of one epoch."""

    tenant: str
    source: str
    epoch: UUID
    last: int
    """The largest number that is known to have been used."""
    recorded_at: datetime | None
    """When something was last recorded of it; None where nothing ever was."""
    missing: Numbers
    """Neither stored nor a dead letter."""
    doubled: Numbers
    """Stored more than once, under different keys."""
    dead_letters: Numbers
    """In dead letters that nobody has resolved."""
    discarded: Numbers
    """Rejected and not stored, and nobody waits for them: their letters were discarded, or deleted from the table."""

    @property
    def key(self) -> Epoch:
        """Whose account it is."""
        return Epoch(self.tenant, self.source, self.epoch)


_KINDS = ("missing", "doubled", "dead_letters", "discarded")
_NONE = "'{}'::int8multirange"


def _numbers_sql(kind: str) -> str:
    """How many numbers of a kind there are, how many ranges, and the first of these."""
    return f"""
    (SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint FROM unnest({kind}) AS r) AS {kind}_count,
    (SELECT count(*) FROM unnest({kind}) AS r) AS {kind}_ranges,
    ARRAY(SELECT r FROM unnest({kind}) AS r LIMIT $11) AS {kind}_first"""  # noqa: S608 (constant names)


_LETTERS = """
SELECT s.tenant_id, s.source, s.epoch,
    range_agg(int8range((r->>0)::int8, (r->>1)::int8, '[]')) FILTER (WHERE d.resolved_at IS NULL) AS open,
    range_agg(int8range((r->>0)::int8, (r->>1)::int8, '[]'))
        FILTER (WHERE d.resolution IN ('replayed', 'edited')) AS stored
FROM dead_letters d
CROSS JOIN jsonb_to_recordset(d.sequences) AS s(tenant_id text, source text, epoch uuid, ranges jsonb)
CROSS JOIN jsonb_array_elements(s.ranges) AS r
WHERE d.sequences IS NOT NULL AND $12
GROUP BY s.tenant_id, s.source, s.epoch"""

_LOOK = f"""
WITH told AS (
    SELECT * FROM unnest($5::text[], $6::text[], $7::uuid[], $8::int8[]) AS t(tenant_id, source, epoch, upto)
), chosen AS (
    SELECT * FROM loss_ledger
    WHERE ($1::text IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR source = $2)
        AND ($3::uuid IS NULL OR epoch = $3) AND ($9 OR epoch IN (SELECT epoch FROM told))
), doubles AS ({DOUBLED.format(rows="chosen")}), letters AS ({_LETTERS}), seen AS (
    SELECT tenant_id, source, epoch, range_agg(persisted) AS persisted, range_agg(doubled) AS doubled,
        range_agg(duplicate) AS duplicate, range_agg(rejected) AS rejected, max(recorded_at) AS recorded_at
    FROM chosen GROUP BY tenant_id, source, epoch
    HAVING $4::timestamptz IS NULL OR max(recorded_at) >= $4
), known AS (
    SELECT tenant_id, source, epoch, recorded_at, coalesce(s.persisted + s.duplicate, {_NONE}) AS stored,
        coalesce(s.rejected, {_NONE}) AS rejected, coalesce(s.doubled, {_NONE}) AS doubled,
        CASE WHEN $10 THEN t.upto ELSE greatest(
            t.upto, upper(range_merge(s.persisted + s.duplicate + s.rejected)) - 1, 0) END AS last
    FROM seen s FULL JOIN told t USING (tenant_id, source, epoch)
    WHERE $9 OR t.upto IS NOT NULL
), judged AS (
    SELECT tenant_id, source, epoch, k.last, k.recorded_at,
        int8multirange(int8range(1, k.last + 1)) - k.stored - k.rejected AS missing,
        k.doubled + coalesce(d.doubled, {_NONE}) AS doubled,
        coalesce(l.open, {_NONE}) AS dead_letters,
        k.rejected - k.stored - coalesce(l.open, {_NONE}) - coalesce(l.stored, {_NONE}) AS discarded
    FROM known k
    LEFT JOIN doubles d USING (tenant_id, source, epoch) LEFT JOIN letters l USING (tenant_id, source, epoch)
)
SELECT tenant_id, source, epoch, last, recorded_at, {", ".join(map(_numbers_sql, _KINDS))}
FROM judged ORDER BY recorded_at DESC NULLS FIRST, epoch, tenant_id, source"""  # noqa: S608 (constant text)


async def look(
    database: Database, chosen: Chosen, *, most_ranges: int, letters: bool = True
) -> AsyncIterator[Account]:
    """The account of every epoch, the latest first; of each kind of number at most so many ranges.

    Without `letters` the dead letters are not looked at: all that was rejected and not stored is `discarded`.
    """
    columns = [list(column) for column in zip(*chosen.upto, strict=True)] or [[], [], []]
    everything = not (chosen.upto or chosen.no_further)
    async with database.transaction() as connection:
        cursor = connection.cursor(
            _LOOK,
            *(chosen.tenant, chosen.source, chosen.epoch, chosen.since),
            *columns,
            list(chosen.upto.values()),
            *(everything, chosen.no_further, most_ranges, letters),
            prefetch=_ROWS_AT_ONCE,
        )
        async for row in cursor:
            yield _account(row)


async def letters_without_number(database: Database) -> int:
    """Unresolved letters of which nobody knows whose numbers they hold, if any."""
    async with database.transaction() as connection:
        count: int = await connection.fetchval(
            "SELECT count(*) FROM dead_letters WHERE resolved_at IS NULL AND sequences IS NULL"
        )
    return count


def _account(row: asyncpg.Record) -> Account:
    return Account(
        row["tenant_id"],
        row["source"],
        row["epoch"],
        row["last"],
        row["recorded_at"],
        *(_numbers(row, kind) for kind in _KINDS),
    )


def _numbers(row: asyncpg.Record, kind: str) -> Numbers:
    first: Sequence[Any] = row[f"{kind}_first"]
    ranges = tuple(Range(one.lower, one.upper - 1) for one in first)
    return Numbers(row[f"{kind}_count"], ranges, row[f"{kind}_ranges"] - len(ranges))
