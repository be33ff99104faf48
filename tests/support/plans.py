"""What the planner would do: the indexes that a statement's plan rests on, partitions' under the name of the whole."""

import json
import re
from typing import Any

import asyncpg

_PARAMETER = re.compile(r"(?<!:):([a-z_]+)\b")


def positional(sql: str, values: dict[str, Any]) -> tuple[str, list[Any]]:
    """A statement with :names as the driver takes it."""
    names = list(dict.fromkeys(_PARAMETER.findall(sql)))
    text = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", sql)
    return text, [values[name] for name in names]


async def explained(
    connection: asyncpg.Connection, sql: str, values: dict[str, Any], options: str = "FORMAT JSON"
) -> dict[str, Any]:
    """The plan, as PostgreSQL tells it."""
    text, arguments = positional(sql, values)
    return json.loads(await connection.fetchval(f"EXPLAIN ({options}) {text}", *arguments))[0]


async def indexes_of(connection: asyncpg.Connection, sql: str, values: dict[str, Any]) -> set[str]:
    """The indexes of a statement's plan."""
    plan = await explained(connection, sql, values)
    used = set(re.findall(r'"Index Name": "([^"]+)"', json.dumps(plan)))
    parents = await connection.fetch(
        "SELECT c.relname AS child, p.relname AS parent FROM pg_inherits i "
        "JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent "
        "WHERE c.relname = ANY($1::text[])",
        list(used),
    )
    return {dict(map(tuple, parents)).get(name, name) for name in used}
