"""Reading tables in tests: counts, rows, and one hash over everything that must not depend on the order of arrival."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import Any

import asyncpg

FACTS_AND_ENTITIES = (
    "tasks",
    "task_dependencies",
    "execution_logs",
    "lifecycle_events",
    "training_jobs",
    "trajectories",
    "policy_checkpoints",
    "sessions",
    "projects",
    "workflow_runs",
    "workflow_steps",
    "dag_nodes",
    "dag_edges",
    "checkpoints",
    "messages",
    "cost_records",
    "approval_requests",
    "branches",
    "workflow_metrics",
    "files",
    "metrics",
)
_MAY_DIFFER = {"updated_at", "recorded_at"}


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        yield connection
    finally:
        await connection.close()


async def rows(url: str, sql: str, *arguments: Any) -> list[dict[str, Any]]:
    """The rows of a query."""
    async with connected(url) as connection:
        return [dict(row) for row in await connection.fetch(sql, *arguments)]


async def count(url: str, table: str) -> int:
    async with connected(url) as connection:
        return await connection.fetchval(f"SELECT count(*) FROM {table}")


async def contents(url: str, *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """A hash of each table's rows, whatever their order; without the columns that may differ between runs."""
    hashes = {}
    async with connected(url) as connection:
        for table in FACTS_AND_ENTITIES:
            names = [
                row["attname"]
                for row in await connection.fetch(
                    "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 "
                    "AND NOT attisdropped ORDER BY attname",
                    table,
                )
                if row["attname"] not in {*_MAY_DIFFER, *without}
            ]
            listed = ", ".join(f'"{name}"' for name in names)
            lines = await connection.fetch(f"SELECT ROW({listed})::text AS line FROM {table}")
            digest = blake2b("\n".join(sorted(row["line"] for row in lines)).encode())
            hashes[table] = f"{len(lines)} rows {digest.hexdigest()[:16]}"
    return hashes
