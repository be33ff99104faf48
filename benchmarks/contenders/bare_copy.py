"""Bare COPY: the same rows, rendered beforehand, into the same tables on one connection, a transaction for 500.

No broker, no parsing, no duplicates, no confirmations: what PostgreSQL alone can take on one connection.
"""

import io
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from benchmarks.contenders.contender import Contender
from benchmarks.events import Event
from benchmarks.load import BATCH_EVENTS, Load
from worker.families import plan
from worker.store.bulk import is_json
from worker.store.declaration import Fact

_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"})
_DIGEST = "\\\\x" + "5a" * 16


@dataclass(frozen=True)
class BareCopy(Contender):
    """COPY from this process. `measure` runs it without a queue."""

    name: str = "bare-copy"
    loads: tuple[str, ...] | None = ("logs", "trajectories")

    async def fill(self, place: Any, load: Load) -> None:
        """Make the parents that the rows name; there is no queue."""
        fact = _fact(load)
        for parent in fact.parents:
            keys = list({UUID(event["data"][parent.column]) for event in load.events})
            key = next(iter(parent.table.primary_key)).name
            await place.database.execute(
                f"INSERT INTO {parent.table.name} ({key}, placeholder) SELECT k, true FROM unnest($1::uuid[]) k",  # noqa: S608 (names of the model)
                keys,
            )

    async def copies(self, connection: asyncpg.Connection, load: Load) -> AsyncIterator[int]:
        """Copy everything, a transaction at a time; yields how many rows each had."""
        fact = _fact(load)
        names = [column.name for column in fact.columns]
        chunks = [load.events[at : at + BATCH_EVENTS] for at in range(0, len(load), BATCH_EVENTS)]
        rendered = [_render(fact, chunk) for chunk in chunks]
        yield 0
        for chunk, text in zip(chunks, rendered, strict=True):
            await connection.copy_to_table(
                fact.table.name, source=io.BytesIO(text), columns=names, format="text"
            )
            yield len(chunk)


def _fact(load: Load) -> Fact:
    return plan().facts[load.events[0]["type"]]


def _render(fact: Fact, events: Sequence[Event]) -> bytes:
    """Rows as COPY's text format has them."""
    lines = ("\t".join(_field(fact, event, c) for c in fact.columns) for event in events)
    return ("\n".join(lines) + "\n").encode()


def _field(fact: Fact, event: Event, column: Any) -> str:
    data, name = event["data"], column.name
    if name in fact.key:
        return str(data.get(name) or event["id"])
    match name:
        case "tenant_id":
            return str(event["tenantid"])
        case "event_id":
            return str(event["id"])
        case "source":
            return str(event["source"])
        case "content_digest":
            return _DIGEST
        case "extensions":
            return "\\N"
    value = data.get(name)
    if value is None:
        timed = name in fact.event_time or name == "created_at"
        return str(event["time"]) if timed else "\\N"
    if is_json(column):
        value = orjson.dumps(value).decode()
    if isinstance(value, datetime):
        value = value.isoformat()
    return str(value).translate(_ESCAPES)
