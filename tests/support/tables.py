"""Reading tables in tests: counts, rows, and one hash over everything that must not depend on the order of arrival."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import Any

import asyncpg

import worker.families  # noqa: F401 (makes the tables known)
from worker.store.schema import Kind, tables_of_kind

FACTS_AND_ENTITIES = tuple(
    table.name for kind in (Kind.FACT, Kind.ENTITY) for table in tables_of_kind(kind)
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


async def empty(url: str) -> None:
    """Every table of messages, and what became of messages, without rows; an append-only one, too."""
    async with connected(url) as connection:
        await connection.execute("SET session_replication_role = replica")  # triggers rest
        await connection.execute(
            f"TRUNCATE {', '.join(FACTS_AND_ENTITIES)}, dead_letters, outbox CASCADE"
        )


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
