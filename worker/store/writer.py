"""Writes the messages of a batch into their tables: one statement a table, all families in one order.

Promises one verdict a message: stored now, stored before, or in conflict with what is stored. Rows are written in key
order and tables in one order, so that two workers lock in the same order. Nothing here commits.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg
import orjson
from sqlalchemy import Column

from worker.errors import Unavailable
from worker.message import Accepted, Message, Rejected
from worker.store.declaration import Entity, Fact, Parent, Plan
from worker.store.lifecycle import lifecycle_events
from worker.store.merge import (
    Folded,
    fold_batch,
    placeholder_sql,
    upsert_columns,
    upsert_sql,
    visible,
)
from worker.store.unnest import column_value, digests_sql, insert_sql, is_json

Verdict = Accepted | Rejected
_Getter = Callable[[Sequence[Message]], list[Any]]


class Writer:
    """Every statement that the declared tables need, made once."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._lifecycle = _Inserter(
            [c for c in lifecycle_events.columns if c.name != "recorded_at"],
            ("event_id",),
            {**_FACT_GETTERS, **_lifecycle_getters(plan.entities)},
        )
        self._facts = {fact.event: _fact_inserter(fact) for fact in plan.fact_order}
        self._entities = [_EntityWriter(entity) for entity in plan.entity_order]

    async def write(
        self, connection: asyncpg.Connection, messages: Sequence[Message]
    ) -> list[Verdict]:
        """Write these messages in the open transaction; one verdict for each, in no particular order."""
        by_event: dict[str, list[Message]] = defaultdict(list)
        changes: list[Message] = []
        for message in messages:
            if message.type in self._plan.entities:
                changes.append(message)
            else:
                by_event[message.type].append(message)
        verdicts, fresh = await self._lifecycle.insert(connection, changes)
        await self._write_entities(connection, fresh, by_event)
        for event, inserter in self._facts.items():
            if event in by_event:
                verdicts += (await inserter.insert(connection, by_event[event]))[0]
        return verdicts

    async def _write_entities(
        self,
        connection: asyncpg.Connection,
        changes: Iterable[Message],
        facts: Mapping[str, Sequence[Message]],
    ) -> None:
        """Fold fresh changes into their rows, and make placeholders for entities that were only named."""
        changes_of: dict[str, list[Message]] = defaultdict(list)
        named: dict[str, dict[tuple[Any, str], datetime]] = defaultdict(dict)
        for message in changes:
            entity = self._plan.entities[message.type]
            changes_of[entity.table.name].append(message)
            sets = entity.folds[message.type].sets
            _name_parents(named, (p for p in entity.parents if p.column in sets), message)
        for event, messages in facts.items():
            for message in messages:
                _name_parents(named, self._plan.facts[event].parents, message)
        for writer in self._entities:
            name = writer.entity.table.name
            await writer.write(connection, changes_of.get(name, ()), named.get(name, {}))


def _name_parents(
    named: dict[str, dict[tuple[Any, str], datetime]], parents: Iterable[Parent], message: Message
) -> None:
    """Remember which entities a message names, and the earliest time at which one was named."""
    for parent in parents:
        key = getattr(message.fields, parent.column)
        if key is not None:
            times = named[parent.table.name]
            place = (key, message.tenant)
            times[place] = min(times.get(place, message.time), message.time)


class _Inserter:
    """Inserts the rows of one append-only table and tells new keys from known ones."""

    def __init__(
        self, columns: Sequence[Column[Any]], key: tuple[str, ...], getters: Mapping[str, _Getter]
    ) -> None:
        table = columns[0].table
        self._getters = [getters[column.name] for column in columns]
        self._insert = insert_sql(columns, key)
        self._digests = digests_sql([table.c[name] for name in (*key, "tenant_id")])
        self._event_is_key = key == ("event_id",)

    async def insert(
        self, connection: asyncpg.Connection, messages: Sequence[Message]
    ) -> tuple[list[Verdict], list[Message]]:
        """One verdict a message, and the messages whose row is new."""
        if not messages:
            return [], []
        first: dict[tuple[Any, ...], Message] = {}
        for message in messages:
            first.setdefault(self._key(message), message)
        keys = sorted(first)
        rows = [first[key] for key in keys]
        inserted = await connection.fetch(self._insert, *(get(rows) for get in self._getters))
        new = {tuple(record) for record in inserted}
        stored = {key: first[key].digest for key in new}
        if len(new) < len(keys):
            stored |= await self._read_digests(connection, [key for key in keys if key not in new])
        fresh = [first[key] for key in keys if key in new]
        verdicts = [
            self._verdict(message, first[key] is message and key in new, stored[key])
            for message in messages
            for key in [self._key(message)]
        ]
        return verdicts, fresh

    def _key(self, message: Message) -> tuple[Any, ...]:
        if self._event_is_key:
            return (message.id, message.tenant)
        return (*message.key, message.tenant)

    async def _read_digests(
        self, connection: asyncpg.Connection, keys: Sequence[tuple[Any, ...]]
    ) -> dict[tuple[Any, ...], bytes]:
        """The digests of rows that were there before; in a statement of its own, since inside the insert's they can be invisible."""
        records = await connection.fetch(self._digests, *map(list, zip(*keys, strict=True)))
        digests = {tuple(record)[:-1]: record["content_digest"] for record in records}
        if len(digests) < len(keys):
            raise Unavailable("a stored row went away while it was compared; trying again")
        return digests

    def _verdict(self, message: Message, fresh: bool, stored: bytes) -> Verdict:  # noqa: FBT001 (reads as a row of a table)
        if fresh:
            return Accepted(message, "persisted")
        if message.digest == stored:
            seen_before = message.delivery.redelivered or message.delivery.retried
            return Accepted(message, "persisted" if seen_before else "duplicate")
        text = (
            f"the key {message.key_text} is stored with other content: its digest is {stored.hex()}, "
            f"this message's is {message.digest.hex()}"
        )
        return rejection(message, "conflict", text)


def rejection(message: Message, reason: Any, text: str) -> Rejected:
    """A message that passed its contract and still cannot be stored."""
    delivery = message.delivery
    return Rejected(
        delivery=delivery,
        index=message.index,
        reason=reason,
        errors=[{"loc": ["data"], "msg": text, "type": reason}],
        body=delivery.body if message.index is None else event_json(message),
        type=message.type,
        id=str(message.id),
        key=message.key_text,
        source=message.source,
        tenant=message.tenant,
    )


def event_json(message: Message) -> bytes:
    """One event of a batch as a body of its own."""
    event = {
        "specversion": "1.0",
        "id": str(message.id),
        "source": message.source,
        "type": message.type,
        "time": message.time.isoformat().replace("+00:00", "Z"),
        "tenantid": message.tenant,
        **(message.extensions or {}),
        "data": message.data,
    }
    return orjson.dumps(event)


class _EntityWriter:
    """Upserts folded rows and placeholders of one entity table."""

    def __init__(self, entity: Entity) -> None:
        self.entity = entity
        self._json = frozenset(c.name for c in entity.table.columns if is_json(c))
        self._columns = upsert_columns(entity)
        self._upsert = upsert_sql(entity)
        self._placeholders = placeholder_sql(entity)

    async def write(
        self,
        connection: asyncpg.Connection,
        changes: Sequence[Message],
        named: Mapping[tuple[Any, str], datetime],
    ) -> None:
        """Fold the changes, and make what was only named; both in one statement and one order of keys."""
        if not changes and named:
            keys = sorted(named)
            columns = zip(*((key, tenant, named[key, tenant]) for key, tenant in keys), strict=True)
            await connection.execute(self._placeholders, *map(list, columns))
        if not changes:
            return
        rows = fold_batch(self.entity, changes, self._json)
        for (key, tenant), time in named.items():
            row = rows.setdefault((key, tenant), Folded(key, tenant, time))
            if row.placeholder:
                row.created_at = min(row.created_at, time)
        in_order = [rows[place] for place in sorted(rows)]
        await connection.execute(
            self._upsert, *([self._value(row, name) for row in in_order] for name in self._columns)
        )

    def _value(self, row: Folded, name: str) -> Any:
        if name == self.entity.key:
            return row.key
        match name:
            case "tenant_id":
                return row.tenant
            case "attempt" | "placeholder" | "created_at" | "version":
                return getattr(row, name)
            case "clocks":
                return _dump(row.clocks)
        value = visible(self.entity, row, name)
        return _dump(value) if name in self._json else value


def _dump(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


_FACT_GETTERS: dict[str, _Getter] = {
    "tenant_id": lambda rows: [row.tenant for row in rows],
    "event_id": lambda rows: [row.id for row in rows],
    "source": lambda rows: [row.source for row in rows],
    "extensions": lambda rows: [_dump(row.extensions) for row in rows],
    "content_digest": lambda rows: [row.digest for row in rows],
    "created_at": lambda rows: [row.time for row in rows],
}


def _fact_inserter(fact: Fact) -> _Inserter:
    getters = {column.name: _column_getter(fact, column) for column in fact.columns}
    return _Inserter(fact.columns, fact.key, getters)


def _column_getter(fact: Fact, column: Column[Any]) -> _Getter:
    name = column.name
    if name in fact.key:
        at = fact.key.index(name)
        return lambda rows: [row.key[at] for row in rows]
    if name in _FACT_GETTERS and name != "created_at":
        return _FACT_GETTERS[name]
    if is_json(column):
        return lambda rows: [_dump(column_value(row, name, (name,))) for row in rows]
    if name in fact.event_time or name == "created_at":
        return lambda rows: [getattr(row.fields, name, None) or row.time for row in rows]
    return lambda rows: [getattr(row.fields, name) for row in rows]


def _lifecycle_getters(entities: Mapping[str, Entity]) -> dict[str, _Getter]:
    return {
        "time": lambda rows: [row.time for row in rows],
        "entity_type": lambda rows: [entities[row.type].name for row in rows],
        "entity_id": lambda rows: [
            str(getattr(row.fields, entities[row.type].key)) for row in rows
        ],
        "type": lambda rows: [row.type for row in rows],
        "attempt": lambda rows: [getattr(row.fields, "attempt", None) for row in rows],
        "data": lambda rows: [_dump(row.data) for row in rows],
    }
