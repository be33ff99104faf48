"""Whether the foreign keys of facts wait for the commit, as the order in which the worker writes asks for.

Facts are written before the placeholders of what they name. A key that is checked at once would refuse every fact that
comes before its parent, so a worker does not start beside one, and stops where it meets one.
"""

from collections.abc import Iterable

import asyncpg

from worker.errors import Misconfigured
from worker.store.declaration import Fact

VIOLATION = "23503"
"""SQLSTATE of a row whose parent is not there."""

CHECK_NOW = "SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED"
"""Looks at the foreign keys of what is written so far, and locks what it names, before the commit does."""

# A partition that was attached by hand may have a key of its own.
_CHECKED_AT_ONCE = """
SELECT DISTINCT conrelid::regclass::text AS place, conname
FROM unnest($1::text[], $2::text[]) AS declared(fact, parent)
JOIN pg_constraint ON confrelid = to_regclass(parent)
    AND (conrelid = to_regclass(fact)
        OR conrelid IN (SELECT relid FROM pg_partition_tree(to_regclass(fact))))
WHERE contype = 'f' AND NOT condeferred AND conparentid = 0
ORDER BY 1, 2
"""


async def checked_at_once(connection: asyncpg.Connection, facts: Iterable[Fact]) -> list[str]:
    """One statement of SQL for each foreign key from these facts to an entity that does not wait; it makes it wait."""
    pairs = sorted({(fact.table.name, parent.table.name) for fact in facts for parent in fact.parents})  # fmt: skip
    found = await connection.fetch(
        _CHECKED_AT_ONCE, [fact for fact, _ in pairs], [parent for _, parent in pairs]
    )
    return [
        f'ALTER TABLE {place} ALTER CONSTRAINT "{name}" DEFERRABLE INITIALLY DEFERRED'
        for place, name in found
    ]


async def require_deferred(connection: asyncpg.Connection, facts: Iterable[Fact]) -> None:
    """Raise Misconfigured, with the statements that mend it, where one of these keys does not wait."""
    mending = await checked_at_once(connection, facts)
    if mending:
        raise Misconfigured(
            "PostgreSQL checks foreign keys before the rows that they name are written; "
            f"as the owner of the tables, run {'; '.join(mending)}"
        )
