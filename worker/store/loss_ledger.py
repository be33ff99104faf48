"""The loss ledger: which of a source's numbered events the worker has seen, as ranges, so that what is missing can be named.

A batch adds one row for each tenant, source and epoch in it, in its own transaction: what is rolled back leaves
nothing, and no row is written by two workers. `compact` folds many rows into one. Promises that the sum of the rows
is what was committed, before, during and after a compaction.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import asyncpg

from worker.message import Accepted, Rejected
from worker.store.database import Database
from worker.store.ranges import fold, literal

_LARGEST_ROW = 16 * 1024 * 1024
"""Bytes of ranges past which a row is not folded again: a source whose numbers have millions of gaps is not honest."""

_GROUPS_AT_ONCE = 200
_ROWS_AT_ONCE = 10_000

_RECORD = """
INSERT INTO loss_ledger (tenant_id, source, epoch, persisted, doubled, duplicate, rejected)
SELECT tenant_id, source, epoch,
    persisted::int8multirange, doubled::int8multirange, duplicate::int8multirange, rejected::int8multirange
FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[])
    AS u(tenant_id, source, epoch, persisted, doubled, duplicate, rejected)"""

DOUBLED = """
SELECT tenant_id, source, epoch, range_agg(int8range(low, least(high, reached))) AS doubled
FROM (
    SELECT tenant_id, source, epoch, lower(r) AS low, upper(r) AS high,
        max(upper(r)) OVER (PARTITION BY tenant_id, source, epoch ORDER BY lower(r), upper(r)
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
    FROM {rows} CROSS JOIN unnest(persisted) AS r
) AS in_order
WHERE low < reached
GROUP BY tenant_id, source, epoch"""
"""What several of the rows say was persisted: a range doubles what an earlier one has reached already."""

_GROUPS = """
SELECT epoch, tenant_id, source FROM loss_ledger WHERE epoch >= $1 AND recorded_at < $2
GROUP BY epoch, tenant_id, source
HAVING count(*) > 1 AND max(pg_column_size(persisted)) + max(pg_column_size(duplicate)) < $3
ORDER BY epoch LIMIT $4"""

_FOLD = f"""
WITH wanted AS (
    SELECT l.epoch, l.id FROM loss_ledger l
    JOIN unnest($1::uuid[], $2::text[], $3::text[]) AS u(epoch, tenant_id, source)
        ON (l.epoch, l.tenant_id, l.source) = (u.epoch, u.tenant_id, u.source)
    WHERE l.recorded_at < $4
    ORDER BY l.epoch, l.tenant_id, l.source, l.id LIMIT $5
    FOR UPDATE OF l SKIP LOCKED
), taken AS (
    DELETE FROM loss_ledger l USING wanted w WHERE (l.epoch, l.id) = (w.epoch, w.id) RETURNING l.*
), doubles AS ({DOUBLED.format(rows="taken")}), folded AS (
    INSERT INTO loss_ledger
        (tenant_id, source, epoch, persisted, doubled, duplicate, rejected, recorded_at)
    SELECT t.tenant_id, t.source, t.epoch, range_agg(t.persisted),
        range_agg(t.doubled) + coalesce(range_agg(d.doubled), '{{}}'), range_agg(t.duplicate),
        range_agg(t.rejected), max(t.recorded_at)
    FROM taken t LEFT JOIN doubles d USING (tenant_id, source, epoch)
    GROUP BY t.tenant_id, t.source, t.epoch
    RETURNING 1
)
SELECT (SELECT count(*) FROM taken) AS taken, (SELECT count(*) FROM folded) AS folded"""  # noqa: S608 (constant text)


@dataclass(slots=True)
class _Seen:
    """What a batch holds of one tenant, source and epoch."""

    persisted: list[int] = field(default_factory=list)
    duplicate: list[int] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)


async def record(connection: asyncpg.Connection, outcomes: Iterable[Accepted | Rejected]) -> None:
    """Add what these outcomes tell to the open transaction; nothing where no event has a number."""
    seen = _by_epoch(outcomes)
    if not seen:
        return
    rows = []
    for (tenant, source, epoch), one in seen.items():
        persisted, doubled = fold(one.persisted)
        others = (fold(one.duplicate)[0], fold(one.rejected)[0])
        rows.append((tenant, source, epoch, *map(literal, (persisted, doubled, *others))))
    await connection.execute(_RECORD, *map(list, zip(*rows, strict=True)))


def _by_epoch(outcomes: Iterable[Accepted | Rejected]) -> dict[tuple[str, str, UUID], _Seen]:
    seen: dict[tuple[str, str, UUID], _Seen] = defaultdict(_Seen)
    for outcome in outcomes:
        if isinstance(outcome, Accepted):
            number = outcome.message.number
            if number is not None:
                one = seen[number[:3]]
                (one.persisted if outcome.fresh else one.duplicate).append(number.sequence)
        else:
            for number in outcome.numbers:
                seen[number[:3]].rejected.append(number.sequence)
    return seen


async def compact(database: Database, *, rows_at_once: int = _ROWS_AT_ONCE) -> int:
    """Fold the rows that are there into one for each tenant, source and epoch, some at a time; how many fewer there are.

    Rows that come meanwhile are left to the next run. Safe beside workers, and beside another compaction.
    """
    async with database.transaction() as connection:
        before: datetime = await connection.fetchval("SELECT clock_timestamp()")
    fewer = 0
    epoch = UUID(int=0)
    while True:
        async with database.transaction() as connection:
            groups = await connection.fetch(_GROUPS, epoch, before, _LARGEST_ROW, _GROUPS_AT_ONCE)
            if not groups:
                return fewer
            columns = map(list, zip(*groups, strict=True))
            done = await connection.fetchrow(_FOLD, *columns, before, rows_at_once)
        if done["taken"] == done["folded"]:  # somebody else is folding these
            return fewer
        fewer += done["taken"] - done["folded"]
        epoch = groups[0]["epoch"]


async def foldable(connection: asyncpg.Connection) -> int:
    """How many fewer rows a compaction would leave, but for rows that are too large to be folded."""
    fewer: int = await connection.fetchval(
        "SELECT coalesce(sum(n - 1), 0)::bigint FROM "
        "(SELECT count(*) AS n FROM loss_ledger GROUP BY epoch, tenant_id, source) AS g"
    )
    return fewer
