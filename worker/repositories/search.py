"""Searches that row-level security would take the index from: through functions of the database.

Under a policy no row may be shown to an operator that could tell of it (`@>`, the distance of embeddings) before the
policy has let it through, so a GIN or vector index is never used. The functions of migration 0009 use it, with the
tenant as a condition of their own, and promise keys of one tenant that the session may read; the rows behind the keys
are read under the policy as ever.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.repositories.errors import BadQuery
from worker.repositories.scope import Scope
from worker.store.embedding import DIMENSIONS

MOST_NEIGHBOURS = 1000

_CONTAINED = {
    ("tasks", "metadata"): "tasks_with_metadata",
    ("trajectories", "steps"): "trajectories_with_steps",
    ("metrics", "tags"): "metrics_with_tags",
}
"""The function that finds the keys of rows whose column contains a value, of each column that has a GIN index."""


@dataclass(frozen=True)
class Neighbour:
    """A row, and how far its embedding lies from the one that was asked for (cosine distance, 0 to 2)."""

    row: dict[str, Any]
    distance: float


def contains(column: sa.Column[Any], value: Any, tenant: str) -> sa.ColumnElement[bool]:
    """The condition that a column of JSON contains a value."""
    function = _CONTAINED.get((column.table.name, column.name))
    if function is None:
        return column.contains(value)
    found = getattr(sa.func, function)(tenant, sa.literal(value, JSONB))
    key = next(iter(column.table.primary_key.columns))
    return key.in_(sa.select(found))


async def nearest(
    connection: AsyncConnection,
    table: sa.Table,
    scope: Scope,
    embedding: Sequence[float],
    limit: int,
) -> list[Neighbour]:
    """The rows of the tenant whose embeddings lie nearest, the nearest first. Raises BadQuery."""
    if len(embedding) != DIMENSIONS:
        raise BadQuery(f"an embedding has {DIMENSIONS:,} numbers, not {len(embedding):,}")
    if not 1 <= limit <= MOST_NEIGHBOURS:
        raise BadQuery(f"limit must be 1 to {MOST_NEIGHBOURS:,}, not {limit:,}")
    wanted = str([float(number) for number in embedding])
    function = getattr(sa.func, f"nearest_{table.name}")(scope.tenant, wanted, limit)
    found = function.table_valued(sa.column("key", sa.Uuid), sa.column("distance", sa.Float))
    key = next(iter(table.primary_key.columns))
    columns = [column for column in table.columns if column.name != "embedding"]
    chosen = (
        sa.select(*columns, found.c.distance.label("nearest_distance"))
        .join_from(table, found, key == found.c.key)
        .where(*scope.conditions(table))
        .order_by(found.c.distance)
    )
    rows = [dict(row) for row in (await connection.execute(chosen)).mappings()]
    return [Neighbour(row, row.pop("nearest_distance")) for row in rows]
