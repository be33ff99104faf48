"""Rows as lines of JSON and back, exactly: every column, every value, nothing rounded.

A line is the row as PostgreSQL's own JSON, without the columns that are NULL: a column that is there with null holds
JSON's null. Promises bounded memory: rows are read and written in portions of some megabytes.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import asyncpg

from worker.operations.archive_files import PartWriter

_PORTION_BYTES = 4 * 1024 * 1024
_PORTION_ROWS = 1000

_COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod) AS type FROM pg_attribute
WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
ORDER BY attnum"""

_GENERATED = """
SELECT attname FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND attgenerated <> ''"""


async def columns_of(connection: asyncpg.Connection, table: str) -> dict[str, str]:
    """The columns of a table that hold values of their own, with their types."""
    return {row["attname"]: row["type"] for row in await connection.fetch(_COLUMNS, table)}


async def line_sql(connection: asyncpg.Connection, table: str, alias: str) -> str:
    """The expression that makes a row's line."""
    columns = await columns_of(connection, table)
    nulls = [f"CASE WHEN {alias}.\"{name}\" IS NULL THEN '{name}' END" for name in columns]
    nulls += [f"'{row['attname']}'" for row in await connection.fetch(_GENERATED, table)]
    return f"(to_jsonb({alias}) - array_remove(ARRAY[{', '.join(nulls)}]::text[], NULL))::text"


async def write_rows(connection: asyncpg.Connection, sql: str, writer: PartWriter) -> list[Any]:
    """Write the column `line` of each row of a query; what its column `place` says of them, in order."""
    places: list[Any] = []
    async for rows in _portions(connection, sql):
        await asyncio.to_thread(writer.write, [row["line"] for row in rows])
        places.extend(row["place"] for row in rows if row["place"] is not None)
    return places


async def _portions(
    connection: asyncpg.Connection, sql: str
) -> AsyncIterator[Sequence[asyncpg.Record]]:
    """The rows of a query, as many at a time as fit into a portion by the size of those before.

    A cursor of the server, because it can be closed: while one is open, triggers of its table cannot be switched.
    """
    await connection.execute(f"DECLARE archived NO SCROLL CURSOR FOR {sql}")
    count = 10
    while rows := await connection.fetch(f"FETCH {count} FROM archived"):
        yield rows
        size = sum(len(row["line"]) for row in rows) // len(rows)
        count = max(1, min(_PORTION_ROWS, _PORTION_BYTES // (size + 1)))
    await connection.execute("CLOSE archived")


def insert_sql(table: str, into: str, columns: Mapping[str, str]) -> str:
    """Insert an array of lines, which are rows of `table`."""
    names = ", ".join(f'"{name}"' for name in columns)
    values = ", ".join(
        f"j.line->'{name}'" if kind == "jsonb" else f'r."{name}"' for name, kind in columns.items()
    )
    return (
        f'INSERT INTO "{into}" ({names}) SELECT {values}'  # noqa: S608 (names of the model)
        f" FROM unnest($1::text[]) AS l(text) CROSS JOIN LATERAL (SELECT l.text::jsonb AS line) j"
        f' CROSS JOIN LATERAL jsonb_populate_record(NULL::"{table}", j.line) r'
        " ON CONFLICT DO NOTHING"
    )


def portions(lines: Iterable[bytes]) -> Iterator[list[str]]:
    """Lines in portions of bounded size."""
    portion: list[str] = []
    size = 0
    for line in lines:
        portion.append(line.decode())
        size += len(line)
        if len(portion) == _PORTION_ROWS or size >= _PORTION_BYTES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def differing(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """How the columns of a table differ from those that were archived; empty where they do not."""
    names = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    return json.dumps({name: [then.get(name), now.get(name)] for name in names}) if names else ""
