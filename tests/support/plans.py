"""What the planner would do: the indexes that a statement's plan rests on, partitions' under the name of the whole."""

import re
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

_PARAMETER = re.compile(r"(?<!:):([a-z_]+)\b")


def positional(sql: str, values: dict[str, Any]) -> tuple[str, list[Any]]:
    """A statement with :names as the driver takes it."""
    names = list(dict.fromkeys(_PARAMETER.findall(sql)))
    text = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", sql)
    return text, [values[name] for name in names]


async def indexes_of(connection: asyncpg.Connection, sql: str, values: dict[str, Any]) -> set[str]:
    """The indexes of a statement's plan."""
    text, arguments = positional(sql, values)
    plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {text}", *arguments)
    return _named(plan, await connection.fetch(_WHOLE))


async def indexes_of_query(connection: AsyncConnection, query: sa.Select[Any]) -> set[str]:
    """The same of a SQLAlchemy statement, with its values bound as they would be."""
    compiled = query.compile(connection.engine)
    bound = [
        compiled._bind_processors.get(name, lambda value: value)(compiled.params[name])
        for name in compiled.positiontup
    ]
    plan = await connection.exec_driver_sql(f"EXPLAIN {compiled}", tuple(bound))
    names = "\n".join(
        f'"Index Name": "{name}"' for line in plan.scalars() for name in _INDEX.findall(line)
    )
    return _named(names, (await connection.exec_driver_sql(_WHOLE)).all())


_INDEX = re.compile(r"(?:Index (?:Only )?Scan(?: Backward)? using|Bitmap Index Scan on) (\w+)")
_WHOLE = (
    "SELECT c.relname AS child, p.relname AS parent FROM pg_inherits i "
    "JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent"
)


def _named(plan: str, partitions: Any) -> set[str]:
    """The indexes in a plan, those of partitions under the name of the whole table's."""
    whole = dict(map(tuple, partitions))
    return {whole.get(name, name) for name in re.findall(r'"Index Name": "([^"]+)"', plan)}
