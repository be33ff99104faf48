"""Which of the rows that were loaded from an archive may come back.

Promises that what is in the table stays as it is, that what was erased stays erased, and that what has to be accounted
for comes back even where its owner is gone: under a placeholder, which holds no content.
"""

from collections.abc import Iterator

import asyncpg
import sqlalchemy as sa
from sqlalchemy.schema import ForeignKeyConstraint

from worker.operations.retention_policy import time_column
from worker.store.schema import Kind

_ERASED_EVENT = "record.erased"
"""The type of the rows of lifecycle_events that record an erasure."""


async def leave_out_present(
    connection: asyncpg.Connection, table: sa.Table, loaded: str
) -> tuple[int, int]:
    """Take out the rows whose key is in the table: how many, and how many of those say something else there."""
    same = " AND ".join(f's."{c.name}" = t."{c.name}"' for c in table.primary_key.columns)
    differs = (
        "s.content_digest <> t.content_digest"
        if table.info["kind"] == Kind.FACT
        else "to_jsonb(s) <> to_jsonb(t)"
    )
    found = await connection.fetchrow(
        f'WITH gone AS (DELETE FROM "{loaded}" s USING "{table.name}" t WHERE {same} RETURNING {differs} AS differs)'  # noqa: S608 (names of the model)
        " SELECT count(*) AS present, count(*) FILTER (WHERE differs) AS differing FROM gone"
    )
    return int(found["present"]), int(found["differing"])


async def leave_out_erased(connection: asyncpg.Connection, table: sa.Table, loaded: str) -> int:
    """Take out the rows that were erased, and those that would have gone with their owner; how many."""
    key = " || '/' || ".join(
        f's."{c.name}"::text' for c in table.primary_key.columns if c.name != "tenant_id"
    )
    entity = table.info.get("entity_type", str(table.name))
    left_out = await _changed(
        connection,
        f'DELETE FROM "{loaded}" s USING lifecycle_events e'  # noqa: S608 (names of the model)
        f" WHERE e.entity_type = $1 AND e.type = $2 AND e.tenant_id = s.tenant_id AND e.entity_id = {key}",
        entity,
        _ERASED_EVENT,
    )
    for foreign_key, column in _owners(table, "CASCADE"):
        left_out += await _changed(
            connection,
            f'DELETE FROM "{loaded}" s WHERE s."{column}" IS NOT NULL AND NOT {_owned(foreign_key, column)}',  # noqa: S608 (names of the model)
        )
    for foreign_key, column in _owners(table, "SET NULL"):
        await connection.execute(
            f'UPDATE "{loaded}" s SET "{column}" = NULL WHERE NOT {_owned(foreign_key, column)}'  # noqa: S608 (names of the model)
        )
    return left_out


async def name_owners(connection: asyncpg.Connection, table: sa.Table, loaded: str) -> int:
    """Make placeholders of owners that are gone and whose audit trail comes back; how many."""
    made = 0
    for foreign_key, column in _owners(table, "RESTRICT"):
        parent = foreign_key.referred_table
        key = next(e.column.name for e in foreign_key.elements if e.column.name != "tenant_id")
        made += await _changed(
            connection,
            f'INSERT INTO "{parent.name}" ("{key}", tenant_id, placeholder, created_at)'  # noqa: S608 (names of the model)
            f' SELECT s."{column}", s.tenant_id, true, min(s."{time_column(table)}") FROM "{loaded}" s'
            f' WHERE s."{column}" IS NOT NULL AND NOT {_owned(foreign_key, column)} GROUP BY 1, 2'
            " ON CONFLICT DO NOTHING",
        )
    return made


async def _changed(connection: asyncpg.Connection, sql: str, *arguments: object) -> int:
    """Run a statement; how many rows it changed."""
    return int((await connection.execute(sql, *arguments)).rpartition(" ")[2])


def _owners(table: sa.Table, action: str) -> Iterator[tuple[ForeignKeyConstraint, str]]:
    """Foreign keys of one kind, each with its own column."""
    for key in sorted(table.foreign_key_constraints, key=lambda one: tuple(one.column_keys)):
        if (key.ondelete or "").startswith(action):
            yield key, next(name for name in key.column_keys if name != "tenant_id")


def _owned(key: ForeignKeyConstraint, column: str) -> str:
    """That the owner is there."""
    parent = next(e.column.name for e in key.elements if e.column.name != "tenant_id")
    return (
        f'EXISTS (SELECT FROM "{key.referred_table.name}" o'
        f' WHERE o."{parent}" = s."{column}" AND o.tenant_id = s.tenant_id)'
    )
