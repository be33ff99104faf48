"""Inserts the rows of append-only tables, and tells new keys from known ones by digest.

Promises one outcome a message. ON CONFLICT names the primary key; the digests of keys that were there before are read
by a statement of their own, since inside the insert's they can be invisible.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

import asyncpg
import orjson
from sqlalchemy import Column

from worker.errors import Unavailable
from worker.message import Accepted, Message, Outcome, Rejected
from worker.store.bulk import array, column_value, digests_sql, insert_sql, is_json
from worker.store.declaration import Entity, Fact
from worker.store.encryption import Cipher
from worker.store.lifecycle import lifecycle_events

_Getter = Callable[[Sequence[Message]], list[Any]]

_LARGE = 2_000
"""Mean bytes of a statement's events from which their JSON values travel apart; decode.py keeps those as text."""
_MOST_APART = 4 * 1024 * 1024
"""Most bytes of events in such a statement: the driver holds an array of texts twice, and memory is promised."""


class Inserter:
    """Inserts the rows of one append-only table and tells new keys from known ones."""

    def __init__(
        self, columns: Sequence[Column[Any]], key: tuple[str, ...], getters: Mapping[str, _Getter]
    ) -> None:
        table = columns[0].table
        self._columns = columns
        self._getters = [getters[column.name] for column in columns]
        self._inserts = {apart: insert_sql(columns, key, apart=apart) for apart in (False, True)}
        self._key_columns = [table.c[name] for name in (*key, "tenant_id")]
        self._digests = digests_sql(self._key_columns)
        self._event_is_key = key == ("event_id",)

    async def insert(
        self, connection: asyncpg.Connection, messages: Sequence[Message]
    ) -> tuple[list[Outcome], list[Message]]:
        """One outcome a message, and the messages whose row is new."""
        if not messages:
            return [], []
        # From the last to the first, so that of several with one key the first stays.
        first = dict(zip(map(self._key, reversed(messages)), reversed(messages), strict=True))
        keys = sorted(first)
        rows = [first[key] for key in keys]
        apart = _are_large(rows)
        values = (
            array(column, get(rows), apart=apart)
            for column, get in zip(self._columns, self._getters, strict=True)
        )
        inserted = await connection.fetch(self._inserts[apart], *values)
        if len(inserted) == len(messages):  # all are new, as nearly always
            return [Accepted(message, "persisted", fresh=True) for message in messages], rows
        new = {tuple(record) for record in inserted}
        stored = {key: first[key].digest for key in new}
        if len(new) < len(keys):
            stored |= await self._read_digests(connection, [key for key in keys if key not in new])
        fresh = [first[key] for key in keys if key in new]
        outcomes = [
            self._outcome(message, first[key] is message and key in new, stored[key])
            for message in messages
            for key in [self._key(message)]
        ]
        return outcomes, fresh

    def _key(self, message: Message) -> tuple[Any, ...]:
        if self._event_is_key:
            return (message.id, message.tenant)
        return (*message.key, message.tenant)

    async def _read_digests(
        self, connection: asyncpg.Connection, keys: Sequence[tuple[Any, ...]]
    ) -> dict[tuple[Any, ...], bytes]:
        """The digests of rows that were there before; in a statement of its own, since inside the insert's they can be invisible."""
        values = zip(*keys, strict=True)
        records = await connection.fetch(self._digests, *map(array, self._key_columns, values))
        digests = {tuple(record)[:-1]: record["content_digest"] for record in records}
        if len(digests) < len(keys):
            raise Unavailable("a stored row went away while it was compared; trying again")
        return digests

    def _outcome(self, message: Message, fresh: bool, stored: bytes) -> Outcome:  # noqa: FBT001 (reads as a row of a table)
        if fresh:
            return Accepted(message, "persisted", fresh=True)
        if message.digest == stored:
            seen_before = message.delivery.redelivered or message.delivery.retried
            return Accepted(message, "persisted" if seen_before else "duplicate")
        text = (
            f"the key {message.key_text} is stored with other content: its digest is {stored.hex()}, "
            f"this message's is {message.digest.hex()}"
        )
        return rejection(message, "conflict", text)


def _are_large(rows: Sequence[Message]) -> bool:
    """Whether these events are large, and not too large to be held twice."""
    size = sum(row.delivery.unpacked / row.delivery.events for row in rows)
    return _LARGE * len(rows) < size <= _MOST_APART


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
        numbers=[message.number] if message.number else (),
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


_FACT_GETTERS: dict[str, _Getter] = {
    "tenant_id": lambda rows: [row.tenant for row in rows],
    "event_id": lambda rows: [row.id for row in rows],
    "source": lambda rows: [row.source for row in rows],
    "extensions": lambda rows: [row.extensions for row in rows],
    "content_digest": lambda rows: [row.digest for row in rows],
    "created_at": lambda rows: [row.time for row in rows],
}


def fact_inserter(fact: Fact) -> Inserter:
    """The inserter of a declared fact."""
    getters = {column.name: _column_getter(fact, column) for column in fact.columns}
    return Inserter(fact.columns, fact.key, getters)


def _column_getter(fact: Fact, column: Column[Any]) -> _Getter:
    name = column.name
    if name in fact.key:
        at = fact.key.index(name)
        return lambda rows: [row.key[at] for row in rows]
    if name in _FACT_GETTERS and name != "created_at":
        return _FACT_GETTERS[name]
    if is_json(column):
        return lambda rows: [column_value(row, name, (name,)) for row in rows]
    if name in fact.event_time or name == "created_at":
        # Not getattr: on a contract without this member it is ten times slower than a look into its values.
        return lambda rows: [vars(row.fields).get(name) or row.time for row in rows]
    value = attrgetter(f"fields.{name}")
    return lambda rows: list(map(value, rows))


def _lifecycle_getters(entities: Mapping[str, Entity]) -> dict[str, _Getter]:
    return {
        "time": lambda rows: [row.time for row in rows],
        "entity_type": lambda rows: [entities[row.type].name for row in rows],
        "entity_id": lambda rows: [vars(row.fields)[entities[row.type].key_member] for row in rows],
        "type": lambda rows: [row.type for row in rows],
        # As above: most of these contracts have no such member.
        "attempt": lambda rows: [vars(row.fields).get("attempt") for row in rows],
        "data": lambda rows: [row.data for row in rows],
    }


def lifecycle_inserter(entities: Mapping[str, Entity], cipher: Cipher | None = None) -> Inserter:
    """The inserter of `lifecycle_events`, whose rows are the idempotency records of all entities."""
    columns = [column for column in lifecycle_events.columns if column.name != "recorded_at"]
    getters = {**_FACT_GETTERS, **_lifecycle_getters(entities)}
    if cipher is not None:
        getters["data"] = lambda rows: [_encrypted(row, entities, cipher) for row in rows]
    return Inserter(columns, ("event_id",), getters)


def _encrypted(row: Message, entities: Mapping[str, Entity], cipher: Cipher) -> dict[str, Any]:
    """The data of a message as it may be stored: what its entity declares as encrypted is."""
    secrets = {
        name: cipher.encrypt(row.data[name])
        for name in entities[row.type].encrypted
        if row.data.get(name) is not None
    }
    return {**row.data, **secrets} if secrets else row.data
