"""Seals over the audit log: every row that was recorded within an hour that has passed goes into a chain of hashes.

Owns what a seal is and how it is made; `audit_verify.py` holds the log against the seals. A seal names its rows with a
digest of each, and its hash covers these, its place and the seal before, so a row or a seal cannot be removed, altered
or exchanged without a trace. (Who can rewrite the database as a whole can rewrite the chain: keep its heads elsewhere.)
Made by `worker maintain`, never while messages are stored. A row that committed late gets a seal of its own later on.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from worker.store.database import Database

SEALED_ROWS = 10_000
"""Most rows of one seal."""

LATE = timedelta(days=1)
"""How long after the newest seal's hour a row of an older hour is still sealed; no transaction of a worker takes as long."""

GENESIS = bytes(32)
"""What a tenant's first seal has for the seal before it."""

_UNSEALED = """
FROM agent_audit_log a
WHERE a.recorded_at >= $1 AND a.recorded_at < $2 AND NOT EXISTS (
    SELECT FROM agent_audit_seals s CROSS JOIN unnest(s.audit_ids) AS sealed(audit_id)
    WHERE s.hour >= $1 - interval '1 hour' AND s.tenant_id = a.tenant_id AND sealed.audit_id = a.audit_id)"""

_ROWS = f"""
SELECT a.tenant_id, date_trunc('hour', a.recorded_at, 'UTC') AS hour, a.audit_id, agent_audit_digest(a) AS digest
{_UNSEALED} ORDER BY a.tenant_id, a.recorded_at, a.audit_id"""

_INSERT = """
INSERT INTO agent_audit_seals (tenant_id, number, hour, audit_ids, row_digests, previous, seal)
VALUES ($1, $2, $3, $4, $5, $6, $7)"""


@dataclass(frozen=True)
class Sealed:
    """What was sealed, or would be."""

    rows: int
    seals: int


@dataclass(frozen=True)
class Head:
    """The end of a tenant's chain."""

    tenant: str
    number: int
    seal: bytes


def seal_hash(
    previous: bytes, tenant: str, number: int, hour: datetime, ids: Sequence[UUID], digests: bytes
) -> bytes:
    """The hash of a seal: over the one before, its place in the chain, and its rows with their digests."""
    place = f"{tenant}\n{number}\n{int(hour.timestamp())}\n{len(ids)}\n".encode()
    return hashlib.sha256(previous + place + b"".join(key.bytes for key in ids) + digests).digest()


async def seal(database: Database) -> Sealed:
    """Seal every row of an hour that has passed; all tenants in one transaction, one run at a time."""
    rows = seals = 0
    async with database.transaction() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('agent_audit_seals'))")
        heads = {head.tenant: head for head in await read_heads(connection)}
        async for tenant, hour, chunk in _unsealed(connection):
            before = heads.get(tenant, Head(tenant, 0, GENESIS))
            ids = [row["audit_id"] for row in chunk]
            digests = b"".join(row["digest"] for row in chunk)
            number = before.number + 1
            text = seal_hash(before.seal, tenant, number, hour, ids, digests)
            await connection.execute(_INSERT, tenant, number, hour, ids, digests, before.seal, text)
            heads[tenant] = Head(tenant, number, text)
            rows, seals = rows + len(chunk), seals + 1
    return Sealed(rows, seals)


async def sealable(database: Database) -> int:
    """How many rows `seal` would seal now."""
    async with database.transaction() as connection:
        counted = await connection.fetchval(
            f"SELECT count(*) {_UNSEALED}",
            *await window(connection),
        )
        return int(counted)


async def read_heads(connection: asyncpg.Connection) -> list[Head]:
    """The newest seal of each tenant."""
    found = await connection.fetch(
        "SELECT DISTINCT ON (tenant_id) tenant_id, number, seal FROM agent_audit_seals"
        " ORDER BY tenant_id, number DESC"
    )
    return [Head(*record) for record in found]


async def window(connection: asyncpg.Connection) -> tuple[datetime, datetime]:
    """From when, and up to when, rows are sealed now: what is older was sealed, or is not from a worker."""
    record = await connection.fetchrow(
        "SELECT coalesce((SELECT max(hour) FROM agent_audit_seals) - $1::interval,"
        " '0001-01-02Z') AS since, date_trunc('hour', now(), 'UTC') AS until",
        LATE,
    )
    return record["since"], record["until"]


async def _unsealed(
    connection: asyncpg.Connection,
) -> AsyncIterator[tuple[str, datetime, list[asyncpg.Record]]]:
    """Rows that no seal holds, in chunks of one tenant and hour, in the order in which they were recorded."""
    chunk: list[asyncpg.Record] = []
    async for row in connection.cursor(_ROWS, *await window(connection), prefetch=1000):
        same = chunk and (chunk[0]["tenant_id"], chunk[0]["hour"]) == (
            row["tenant_id"],
            row["hour"],
        )
        if chunk and (not same or len(chunk) == SEALED_ROWS):
            yield chunk[0]["tenant_id"], chunk[0]["hour"], chunk
            chunk = []
        chunk.append(row)
    if chunk:
        yield chunk[0]["tenant_id"], chunk[0]["hour"], chunk
