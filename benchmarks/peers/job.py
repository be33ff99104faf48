"""What all peers share: reading an event, the statements of its row, its confirmation. Nothing of how they run.

Each peer decides on connections, sessions, concurrency, publishing and acknowledging; only what would be the same in all
of them is here.
"""

import os
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import orjson
from sqlalchemy import Table

from contracts.confirmation import EXCHANGE
from worker.broker.topology import queue_name
from worker.decode import Decoder
from worker.families import families, plan
from worker.message import Delivery, Message, Properties
from worker.store.bulk import is_json
from worker.store.entities import EntityWriter
from worker.store.lifecycle import lifecycle_events

CONFIRMATIONS = EXCHANGE
DATABASE_URL = os.environ.get("DATABASE_URL", "")
AMQP_URL = os.environ.get("AMQP_URL", "")
QUEUES = tuple(os.environ.get("QUEUES", "").split(","))
PREFETCH = 100
POOL = 20

_PLAN = plan()
_DECODERS = {queue_name(name): Decoder(family.contract) for name, family in families().items()}
_FAMILIES = {
    event: Decoder(family.contract)
    for family in families().values()
    for event in family.contract.types
}
_WRITERS = {entity.table.name: EntityWriter(entity) for entity in _PLAN.entity_order}


def read(body: bytes, queue: str | None = None) -> Message:
    """Validate one event with its contract. Raises ValueError where it breaks it."""
    family = queue or ""
    decoder = _DECODERS.get(family)
    if decoder is None:
        decoder = _FAMILIES[orjson.loads(body)["type"]]
    delivery = Delivery(family, 0, False, "", "", body, Properties(), b"")
    [message] = decoder.decode(delivery)
    if not isinstance(message, Message):
        raise ValueError(f"not an event: {message.errors}")  # noqa: TRY004 (it is the value that is wrong)
    return message


def table(message: Message) -> Table:
    """The append-only table of a message's row."""
    fact = _PLAN.facts.get(message.type)
    return lifecycle_events if fact is None else fact.table


def is_fact(message: Message) -> bool:
    """Whether its row is all that there is to write."""
    return message.type in _PLAN.facts


def row(message: Message, *, json_as_text: bool = False) -> dict[str, Any]:
    """The row of a message by column name; what it leaves out is left to the column's default."""
    if not is_fact(message):
        entity = _PLAN.entities[message.type]
        values: dict[str, Any] = {
            "event_id": message.id,
            "time": message.time,
            "entity_type": entity.name,
            "entity_id": str(getattr(message.fields, entity.key)),
            "type": message.type,
            "attempt": getattr(message.fields, "attempt", None),
            "data": message.data,
        }
    else:
        fact = _PLAN.facts[message.type]
        values = {
            column.name: message.data.get(column.name)
            if is_json(column)
            else getattr(message.fields, column.name, None)
            for column in fact.columns
        }
        values |= dict(zip(fact.key, message.key, strict=True))
        values |= {name: values[name] or message.time for name in fact.event_time}
        values["event_id"] = message.id
    values |= {
        "tenant_id": message.tenant,
        "source": message.source,
        "extensions": message.extensions,
        "content_digest": message.digest,
        "created_at": values.get("created_at") or message.time,
    }
    columns = table(message).c
    return {
        name: orjson.dumps(value).decode() if json_as_text and is_json(columns[name]) else value
        for name, value in values.items()
        if value is not None
    }


def parents(message: Message) -> list[tuple[Table, str, Any]]:
    """The entities that a row names: table, key column, key."""
    fact = _PLAN.facts[message.type]
    return [
        (parent.table, next(iter(parent.table.primary_key)).name, key)
        for parent in fact.parents
        if (key := getattr(message.fields, parent.column)) is not None
    ]


async def fold(connection: Any, message: Message) -> None:
    """Merge one entity event into its row, on asyncpg's own connection, inside the open transaction."""
    entity = _PLAN.entities[message.type]
    await _WRITERS[entity.table.name].write(connection, [message], {})


def confirmation(message: Message, worker: str) -> tuple[str, bytes]:
    """Routing key and body of the event that confirms one message."""
    family = message.delivery.family.removeprefix("worker.") or "unknown"
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    item = {
        "id": str(message.id),
        "type": message.type,
        "key": message.key_text,
        "source": message.source,
    }
    event = {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": f"/workers/{worker}",
        "type": "persistence.confirmed",
        "time": now,
        "datacontenttype": "application/json",
        "tenantid": message.tenant,
        "data": {
            "family": family,
            "outcome": "persisted",
            "tenant": message.tenant,
            "worker": worker,
            "committed_at": now,
            "items": [item],
        },
    }
    return f"{family}.persisted.{message.tenant}", orjson.dumps(event)
