"""Erasure: a row and all that it owns are deleted, what was told of it is blanked, and that it happened is recorded.

What is left is no content: of each erased entity the rows of `lifecycle_events` keep id, type, times, source and
digest, and lose `data` and `extensions`; and one row of type `record.erased` says who erased what, when and why.

- A message that changed an erased entity and comes again (redelivered, replayed) is a duplicate, by the digest that is
  kept: the entity stays erased. A message that was never stored makes a placeholder, with what it says and no more.
- A fact's row is the only memory of its message: a repetition is stored again, and what it names becomes a placeholder.
- Dead letters, queues, archives and backups may hold the same content; erasure does not reach them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import ForeignKeyConstraint

from contracts.identifiers import uuid7
from worker.decode import digest
from worker.errors import Invalid
from worker.repositories.errors import BadQuery, NotFound, Refused
from worker.store.database import translate
from worker.store.foreign_keys import CHECK_NOW
from worker.store.lifecycle import lifecycle_events
from worker.store.schema import Kind, metadata

EVENT_TYPE = "record.erased"
"""The type of the row in `lifecycle_events` that records an erasure; no message has it."""

SOURCE = "/erasure"

Keys = dict[sa.Table, set[Any]]


@dataclass(frozen=True)
class Erased:
    """What an erasure removed: rows by table, and the events whose content was blanked."""

    rows: dict[str, int]
    events_blanked: int


async def erase(
    connection: AsyncConnection,
    table: sa.Table,
    place: Sequence[sa.ColumnElement[bool]],
    name: str,
    *,
    by: str,
    reason: str,
) -> Erased:
    """Erase the row at `place` in the open transaction. Raises NotFound, BadQuery, and Refused where an audit trail holds it."""
    if not by.strip() or not reason.strip():
        raise BadQuery("an erasure needs a name (by) and a reason: they are recorded")
    found = await connection.execute(sa.select(table).where(*place).with_for_update())
    row = found.mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no {name}")
    tenant: str = row["tenant_id"]
    try:
        keys = await _owned_keys(connection, table, _key(row, table), tenant)
        removed = await _delete_owned(connection, keys, tenant)
        await _delete_itself(connection, keys, table, place, removed)
        for checked in CHECK_NOW.split("; "):  # one a call: SQLAlchemy prepares them
            await connection.exec_driver_sql(checked)
    except DBAPIError as error:
        meant = translate(error)
        if isinstance(meant, Invalid):
            detail = {"loc": [], "msg": f"PostgreSQL keeps it: {meant}", "type": "restricted"}
            raise Refused(f"{name} cannot be erased", [detail]) from error
        raise meant from error
    blanked = sum([await _blank(connection, one, found, tenant) for one, found in keys.items()])
    await _record(connection, table, row, removed, blanked, by=by, reason=reason)
    return Erased(removed, blanked)


def _key(row: sa.RowMapping, table: sa.Table) -> Any:
    """The first column of the key: what foreign keys name."""
    return row[next(iter(table.primary_key)).name]


def _owners(child: sa.Table) -> Iterator[tuple[sa.Column[Any], sa.Table]]:
    """The columns of a table that name an owner: the row goes with it."""
    for constraint in child.constraints:
        if isinstance(constraint, ForeignKeyConstraint) and constraint.ondelete == "CASCADE":
            name = next(name for name in constraint.column_keys if name != "tenant_id")
            yield child.c[name], constraint.referred_table


def _is_read(table: sa.Table) -> bool:
    """Whether the keys of erased rows have to be known: of what owns others, and of what has a history."""
    return table.info.get("kind") == Kind.ENTITY or any(
        owner is table for child in metadata.sorted_tables for _, owner in _owners(child)
    )


async def _owned_keys(connection: AsyncConnection, table: sa.Table, key: Any, tenant: str) -> Keys:
    """The keys of all that goes with a row and has to be known by key; facts that own nothing are not read."""
    keys: Keys = {table: {key}}
    news: Keys = {table: {key}}
    while news:
        found: Keys = {}
        for child in filter(_is_read, metadata.sorted_tables):
            for column, owner in _owners(child):
                if owner not in news:
                    continue
                first = next(iter(child.primary_key))
                chosen = sa.select(first).where(_any(column, news[owner]))
                chosen = chosen.where(child.c.tenant_id == tenant).with_for_update()
                known = keys.setdefault(child, set())
                fresh = set((await connection.execute(chosen)).scalars()) - known
                known |= fresh
                if fresh:
                    found.setdefault(child, set()).update(fresh)
        news = found
    return {one: values for one, values in keys.items() if values}


async def _delete_owned(connection: AsyncConnection, keys: Keys, tenant: str) -> dict[str, int]:
    """Delete what owns nothing itself, by owner; rows removed by table."""
    removed: dict[str, int] = {}
    for child in reversed(metadata.sorted_tables):
        owned = [_any(column, keys[owner]) for column, owner in _owners(child) if owner in keys]
        if not owned or child in keys:
            continue
        delete = sa.delete(child).where(sa.or_(*owned), child.c.tenant_id == tenant)
        if count := (await connection.execute(delete)).rowcount:
            removed[str(child.name)] = count
    return removed


async def _delete_itself(
    connection: AsyncConnection,
    keys: Keys,
    table: sa.Table,
    place: Sequence[sa.ColumnElement[bool]],
    removed: dict[str, int],
) -> None:
    """Delete the row, and with it, by the database's own cascade, what was found to go with it."""
    await connection.execute(sa.delete(table).where(*place))
    for one, found in keys.items():
        removed[str(one.name)] = len(found)


async def _blank(connection: AsyncConnection, table: sa.Table, keys: set[Any], tenant: str) -> int:
    """Take the content out of the events of erased entities; what makes a repetition a duplicate stays."""
    if table.info.get("kind") != Kind.ENTITY:
        return 0
    events = lifecycle_events
    blanked = (
        sa.update(events)
        .where(events.c.entity_type == table.info["entity_type"], events.c.tenant_id == tenant)
        .where(_any(events.c.entity_id, set(map(str, keys))), events.c.type != EVENT_TYPE)
        .values(data={}, extensions=None)
    )
    return (await connection.execute(blanked)).rowcount


def _any(column: sa.Column[Any], values: set[Any]) -> sa.ColumnElement[bool]:
    """One of many values, as one array: a list of bound values would have a limit."""
    array = sa.literal(list(values), sa.ARRAY(column.type))
    return column == sa.func.any(array)


async def _record(
    connection: AsyncConnection,
    table: sa.Table,
    row: sa.RowMapping,
    removed: dict[str, int],
    blanked: int,
    *,
    by: str,
    reason: str,
) -> None:
    """The audit entry: who, when, what and why; nothing of the content."""
    key = [str(row[c.name]) for c in table.primary_key if c.name != "tenant_id"]
    data = {
        "by": by,
        "reason": reason,
        "table": str(table.name),
        "version": row.get("version"),
        "rows": removed,
        "events_blanked": blanked,
    }
    entry = {
        "event_id": uuid7(),
        "tenant_id": row["tenant_id"],
        "time": datetime.now(UTC),
        "entity_type": table.info.get("entity_type", str(table.name)),
        "entity_id": "/".join(key),
        "type": EVENT_TYPE,
        "data": data,
        "source": SOURCE,
        "content_digest": digest(EVENT_TYPE, row["tenant_id"], data),
    }
    await connection.execute(sa.insert(lifecycle_events).values(**entry))
