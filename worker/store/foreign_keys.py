"""Whether the foreign keys of facts wait for the commit, as the order in which the worker writes asks for.

Facts are written before the placeholders of what they name. A key that is checked at once would refuse every fact that
comes before its parent, so a worker does not start beside one.
"""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.store.declaration import Fact

_CHECKED_AT_ONCE = sa.text("""
SELECT conrelid::regclass::text AS place, conname
FROM pg_constraint
JOIN unnest(CAST(:facts AS text[]), CAST(:parents AS text[])) AS declared(fact, parent)
    ON conrelid = to_regclass(fact) AND confrelid = to_regclass(parent)
WHERE contype = 'f' AND NOT condeferred
ORDER BY 1, 2
""")


async def checked_at_once(connection: AsyncConnection, facts: Iterable[Fact]) -> list[str]:
    """One statement of SQL for each foreign key from these facts to an entity that does not wait; it makes it wait."""
    pairs = {(fact.table.name, parent.table.name) for fact in facts for parent in fact.parents}
    places = {"facts": [fact for fact, _ in pairs], "parents": [parent for _, parent in pairs]}
    found = await connection.execute(_CHECKED_AT_ONCE, places)
    return [
        f'ALTER TABLE {place} ALTER CONSTRAINT "{name}" DEFERRABLE INITIALLY DEFERRED'
        for place, name in found
    ]
