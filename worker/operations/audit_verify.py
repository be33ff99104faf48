"""`worker audit verify`: holds the audit log against its seals, and names every row and seal that is not as it was.

Changes nothing. Promises to find a row that was removed, altered or added after its hour was sealed, and a seal that
was removed, altered or exchanged; of seals that were cut off at the end of the chain, those that `earlier` names.
"""

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from worker.operations.audit_seals import GENESIS, Head, seal_hash, window
from worker.operations.services import open_database, require_migrations
from worker.settings import Settings

KEPT_AT_LEAST = timedelta(days=3 * 365)
"""How long audit rows are kept at least: a seal that was retired sooner is a problem."""

_DIGEST = 32
_AT_A_TIME = 20

_SEALS = """
SELECT tenant_id, number, hour, audit_ids, row_digests, previous, seal, retired_at, now() AS now
FROM agent_audit_seals ORDER BY tenant_id, number"""

# The bounds let PostgreSQL look into the months of these keys only.
_ROWS = """
SELECT a.audit_id, agent_audit_digest(a) AS digest FROM agent_audit_log a
WHERE a.tenant_id = $1 AND a.audit_id = ANY($2) AND a.audit_id >= $3 AND a.audit_id <= $4"""

_ADDED = """
SELECT a.tenant_id, a.audit_id, date_trunc('hour', a.recorded_at, 'UTC') AS hour
FROM agent_audit_log a
WHERE a.recorded_at < $1 AND NOT EXISTS (
    SELECT FROM agent_audit_seals s CROSS JOIN unnest(s.audit_ids) AS sealed(audit_id)
    WHERE s.tenant_id = a.tenant_id AND sealed.audit_id = a.audit_id)
ORDER BY a.tenant_id, a.recorded_at, a.audit_id"""

_WAITING = """
SELECT count(*) FROM agent_audit_log WHERE recorded_at >= coalesce((SELECT max(hour) FROM agent_audit_seals), '-infinity')
    + interval '1 hour'"""


@dataclass(frozen=True)
class Problem:
    """Something that is not as it was: a row (audit_id) or a seal (number)."""

    tenant: str
    what: str
    number: int | None = None
    hour: datetime | None = None
    audit_id: UUID | None = None


@dataclass
class Verification:
    """What was looked at, and what is wrong with it."""

    rows: int = 0
    seals: int = 0
    retired: int = 0
    """Seals whose rows were archived by retention, and are not looked at."""
    waiting: int = 0
    """Rows of hours that are not sealed yet."""
    problems: list[Problem] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)


async def verify(settings: Settings, earlier: Iterable[Head] = ()) -> Verification:
    """Look at every seal and every row. `earlier`: heads of an earlier look, which must still be in their chains."""
    found = Verification()
    async with open_database(settings) as database:
        await require_migrations(database, settings)
        async with database.transaction() as connection:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            await _chains(connection, found, {(one.tenant, one.number): one for one in earlier})
            since, _ = await window(connection)
            for row in await connection.fetch(_ADDED, since):
                found.problems.append(
                    Problem(row["tenant_id"], "row added", None, row["hour"], row["audit_id"])
                )
            found.waiting = await connection.fetchval(_WAITING)
    return found


async def _chains(
    connection: asyncpg.Connection, found: Verification, earlier: dict[tuple[str, int], Head]
) -> None:
    """Go along the chain of every tenant."""
    heads: dict[str, Head] = {}
    async for record in connection.cursor(_SEALS, prefetch=_AT_A_TIME):
        tenant = record["tenant_id"]
        before = heads.get(tenant, Head(tenant, 0, GENESIS))
        found.problems += _broken(record, before)
        known = earlier.pop((tenant, record["number"]), None)
        if known and not hmac.compare_digest(known.seal, record["seal"]):
            found.problems.append(_of(record, "seal differs from the earlier look"))
        heads[tenant] = Head(tenant, record["number"], record["seal"])
        found.seals += 1
        if record["retired_at"] is not None:
            found.retired += 1
        else:
            found.problems += await _rows(connection, record)
            found.rows += len(record["audit_ids"])
    found.problems += [
        Problem(one.tenant, "seal removed since the earlier look", one.number)
        for one in earlier.values()
    ]
    found.heads = list(heads.values())


def _broken(record: asyncpg.Record, before: Head) -> list[Problem]:
    """What is wrong with a seal itself, and with its place in the chain."""
    problems = [
        Problem(before.tenant, "seal removed", number)
        for number in range(before.number + 1, record["number"])
    ]
    if not problems and record["previous"] != before.seal:
        problems.append(_of(record, "seal does not follow the one before"))
    text = seal_hash(
        record["previous"],
        record["tenant_id"],
        record["number"],
        record["hour"],
        record["audit_ids"],
        record["row_digests"],
    )
    if text != record["seal"]:
        problems.append(_of(record, "seal altered"))
    retired = record["retired_at"]
    if retired is not None and record["hour"] > record["now"] - KEPT_AT_LEAST:
        problems.append(_of(record, "rows retired before their time"))
    return problems


async def _rows(connection: asyncpg.Connection, record: asyncpg.Record) -> list[Problem]:
    """What is wrong with the rows of a seal."""
    ids: Sequence[UUID] = record["audit_ids"]
    if not ids:
        return []
    stored = await connection.fetch(_ROWS, record["tenant_id"], ids, min(ids), max(ids))
    digests = {row["audit_id"]: row["digest"] for row in stored}
    problems = []
    for at, key in enumerate(ids):
        sealed = record["row_digests"][at * _DIGEST : (at + 1) * _DIGEST]
        if digests.get(key) != sealed:
            what = "row altered" if key in digests else "row removed"
            problems.append(
                Problem(record["tenant_id"], what, record["number"], record["hour"], key)
            )
    return problems


def _of(record: asyncpg.Record, what: str) -> Problem:
    return Problem(record["tenant_id"], what, record["number"], record["hour"])
