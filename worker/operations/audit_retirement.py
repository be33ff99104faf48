"""Rows of the audit log that leave it and come back: only what is old enough and as it was sealed leaves.

Promises that retention hides nothing: rows that no seal holds, or that differ from theirs, stay, and so do those of
seals that miss a row. `worker audit verify` finds nothing wrong after a retirement, and nothing after a restore.
"""

from datetime import datetime
from typing import Any

import asyncpg

from worker.errors import WorkerError

_YOUNG = """
SELECT EXISTS (SELECT FROM ONLY "{place}" WHERE recorded_at >= $1 OR timestamp >= $1)"""

# The hours within which rows of a place were sealed.
_HOURS = """s.hour BETWEEN (SELECT date_trunc('hour', min(recorded_at), 'UTC') FROM ONLY "{place}")
    AND (SELECT max(recorded_at) FROM ONLY "{place}")"""

# The seals that are not retired, with a row of this place among theirs.
_SEALS = f"""
SELECT s.* FROM agent_audit_seals s WHERE s.retired_at IS NULL AND {_HOURS} AND EXISTS (
    SELECT FROM unnest(s.audit_ids) AS k(audit_id) JOIN ONLY "{{place}}" p
    ON p.audit_id = k.audit_id AND p.tenant_id = s.tenant_id {{where}})"""  # noqa: S608 (constants)

_UNSEALED = f"""
SELECT count(*) FROM ONLY "{{place}}" p WHERE NOT EXISTS (
    SELECT FROM agent_audit_seals s CROSS JOIN unnest(s.audit_ids) AS k(audit_id)
    WHERE {_HOURS} AND s.tenant_id = p.tenant_id AND k.audit_id = p.audit_id) {{where}}"""  # noqa: S608 (constants)

_ROWS_OF = """
FROM unnest(s.audit_ids) WITH ORDINALITY AS k(audit_id, at)
LEFT JOIN agent_audit_log a ON a.audit_id = k.audit_id AND a.tenant_id = s.tenant_id
WHERE a.audit_id IS NULL
    OR agent_audit_digest(a) <> substring(s.row_digests FROM (k.at::integer - 1) * 32 + 1 FOR 32)"""

_DIFFERING = f"SELECT count(*) FROM ({{seals}}) s CROSS JOIN LATERAL (SELECT {_ROWS_OF}) wrong"  # noqa: S608 (constants)

_RETIRE = """
UPDATE agent_audit_seals u SET retired_at = now() FROM ({seals}) s
WHERE u.tenant_id = s.tenant_id AND u.number = s.number"""

_REOPEN = f"""
UPDATE agent_audit_seals s SET retired_at = NULL WHERE s.retired_at IS NOT NULL AND {_HOURS} AND EXISTS (
    SELECT FROM unnest(s.audit_ids) AS k(audit_id) JOIN "{{place}}" p
    ON p.audit_id = k.audit_id AND p.tenant_id = s.tenant_id) AND NOT EXISTS (SELECT {_ROWS_OF})"""  # noqa: S608 (constants)

_ALTERED = f"""
SELECT count(*) FROM agent_audit_seals s
CROSS JOIN LATERAL unnest(s.audit_ids) WITH ORDINALITY AS k(audit_id, at)
JOIN "{{place}}" p ON p.audit_id = k.audit_id AND p.tenant_id = s.tenant_id
JOIN agent_audit_log a ON a.audit_id = k.audit_id AND a.tenant_id = s.tenant_id
WHERE s.retired_at IS NOT NULL AND {_HOURS}
    AND agent_audit_digest(a) <> substring(s.row_digests FROM (k.at::integer - 1) * 32 + 1 FOR 32)"""  # noqa: S608 (constants)


async def too_young(connection: asyncpg.Connection, place: str, cutoff: datetime) -> bool:
    """Whether a partition holds a row that was recorded, or happened, after a moment."""
    return bool(await connection.fetchval(_YOUNG.format(place=place), cutoff))


async def obstacle(
    connection: asyncpg.Connection, place: str, cutoff: datetime, *among: Any, where: str = ""
) -> str | None:
    """Why rows of a partition may not leave the log; None where they may. `where`: which of its rows, as a condition on p."""
    if not where and await too_young(connection, place, cutoff):
        return "some of its rows were recorded too lately"
    seals = _SEALS.format(place=place, where=where)
    unsealed = await connection.fetchval(_UNSEALED.format(place=place, where=where), *among)
    differing = await connection.fetchval(_DIFFERING.format(seals=seals), *among)
    if unsealed or differing:
        return (
            f"{unsealed:,} of its rows are in no seal and {differing:,} are not as they were sealed:"
            " see 'worker audit verify'"
        )
    return None


async def retire_seals(
    connection: asyncpg.Connection, place: str, *among: Any, where: str = ""
) -> None:
    """Say in the open transaction of the seals that hold rows of a partition that these are retired."""
    seals = _SEALS.format(place=place, where=where)
    await connection.execute(_RETIRE.format(seals=seals), *among)


async def reopen_seals(connection: asyncpg.Connection, place: str) -> None:
    """Look after the rows of a table that were restored into the log: a seal whose rows are all back holds again.

    Raises WorkerError where a restored row is not what its seal says: then nothing is restored.
    """
    altered = await connection.fetchval(_ALTERED.format(place=place))
    if altered:
        raise WorkerError(
            f"{altered:,} rows of the archive are not as they were sealed, so nothing was restored"
        )
    await connection.execute(_REOPEN.format(place=place))
