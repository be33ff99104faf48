"""Somebody else's session in the database, that holds what the worker wants; and seeing who waits for whom."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg

from support.tables import connected, rows
from support.waiting import until


def foreign_log(log_id: UUID, task_id: UUID) -> str:
    """A log of somebody else's under a key of ours: whoever inserts that key has to wait for them."""
    return (
        "INSERT INTO execution_logs (log_id, task_id, step_number, agent_type, action, status, timestamp, event_id, "
        f"source, content_digest) VALUES ('{log_id}', '{task_id}', 0, 'infra', 'theirs', 'running', now(), "
        "gen_random_uuid(), '/theirs', '\\x000102030405060708090a0b0c0d0e0f')"
    )


@asynccontextmanager
async def holding(url: str, *statements: str) -> AsyncIterator[asyncpg.Connection]:
    """A session that has run these statements and not committed; it rolls back at the end of the block."""
    async with connected(url) as session:
        transaction = session.transaction()
        await transaction.start()
        for statement in statements:
            await session.execute(statement)
        try:
            yield session
        finally:
            await transaction.rollback()


async def waiting(url: str, count: int = 1) -> list[int]:
    """Wait until so many sessions of the worker wait for a lock; their process ids."""

    async def blocked() -> list[int] | None:
        found: list[dict[str, Any]] = await rows(
            url,
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' "
            "AND application_name LIKE 'test-worker%'",
        )
        return [row["pid"] for row in found] if len(found) >= count else None

    return await until(blocked)
