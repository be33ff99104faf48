"""The transactional outbox: what has to be confirmed is committed with the data, one row a transaction.

Promises that a row is deleted only by whoever has the broker's acknowledgement for every event in it. Replies are tried,
and given up where nobody can take them: whoever wants to be sure reads the exchange.
Source of the pattern: Chris Richardson, "Transactional outbox".
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from contracts.identifiers import uuid7
from worker.message import Accepted, Outcome

# The size is known without reading what lies outside the row (no payload is compressed): only what is returned is read.
_OLDEST = """
SELECT id, family, created_at, size, CASE WHEN before + size <= $3 OR before = 0 THEN payload::text END AS text
FROM (
    SELECT *, sum(size) OVER (ORDER BY created_at, id) - size AS before
    FROM (
        SELECT *, pg_column_size(payload) AS size FROM outbox
        WHERE created_at < now() - make_interval(secs => $1)
        AND ($4::timestamptz IS NULL OR (created_at, id) > ($4, $5::uuid))
        ORDER BY created_at, id LIMIT $2
    ) AS oldest
) AS counted ORDER BY created_at, id
"""
SWEEP_LOCK = 0x6167656E742D6F62
"""The advisory lock that lets one sweeper work at a time."""


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """One row: for each outcome and tenant the items to confirm, and the replies that publishers asked for."""

    id: UUID
    family: str
    payload: dict[str, Any]
    committed_at: datetime
    size: int
    """Bytes of the payload as JSON; of a row that was read again, with up to four of PostgreSQL's own."""


def payload(outcomes: Sequence[Outcome], reply_allowed: "ReplyRule") -> dict[str, Any]:
    """What has to be told: {"groups": [...], "replies": [...]}, ready for the row and for the relay."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    replies: dict[tuple[int, str, str, str], dict[str, Any]] = {}
    for outcome in outcomes:
        family, name, tenant, item = describe(outcome)
        groups.setdefault((family, name, tenant), []).append(item)
        delivery = (outcome.message if isinstance(outcome, Accepted) else outcome).delivery
        if delivery.properties.reply_to and reply_allowed(delivery.properties.reply_to):
            key = (id(delivery), family, name, tenant)
            reply = replies.get(key)
            if reply is None:
                reply = replies[key] = {
                    "reply_to": delivery.properties.reply_to,
                    "correlation_id": delivery.properties.correlation_id
                    or _short(_text(item["id"])),
                    "family": family,
                    "outcome": name,
                    "tenant": tenant,
                    "items": [],
                }
            reply["items"].append(item)
    return {
        "groups": [
            {"family": family, "outcome": name, "tenant": tenant, "items": items}
            for (family, name, tenant), items in groups.items()
        ],
        "replies": list(replies.values()),
    }


def as_text(value: Any) -> str:
    """What orjson does not know of a payload: the driver's own UUIDs. Raises TypeError for anything else."""
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"a payload holds no {type(value).__name__}")


def _text(event_id: UUID | str | None) -> str | None:
    return str(event_id) if isinstance(event_id, UUID) else event_id


def _short(text: str | None) -> str | None:
    """What fits AMQP's short strings; an id that a publisher made up may not."""
    return text if text is not None and len(text.encode()) <= 255 else None  # noqa: PLR2004 (AMQP's limit)


class ReplyRule:
    """Which reply_to addresses are honoured; the others are ignored and counted by the caller's `count`."""

    def __init__(self, pattern: str, count: Any) -> None:
        self._prefix, self._star, self._suffix = pattern.partition("*")
        self._count = count

    def __call__(self, reply_to: str) -> bool:
        """Whether a reply may be sent to this queue."""
        allowed = reply_to.startswith("amq.rabbitmq.reply-to.") or (
            reply_to.startswith(self._prefix) and reply_to.endswith(self._suffix)
            if self._star
            else bool(self._prefix) and reply_to == self._prefix
        )
        if not allowed:
            self._count()
        return allowed


def describe(outcome: Outcome) -> tuple[str, str, str, dict[str, Any]]:
    """Family, outcome, tenant and confirmation item of one settled message."""
    if isinstance(outcome, Accepted):
        message = outcome.message
        key = message.key
        # UUIDs as such: orjson writes them, at a tenth of what str() costs.
        item: dict[str, Any] = {
            "id": message.id,
            "type": message.type,
            "key": key[0] if len(key) == 1 else message.key_text,
            "source": message.source,
        }
        return message.delivery.family, outcome.outcome, message.tenant, item
    item = {
        "id": outcome.id,
        "type": outcome.type,
        "key": outcome.key,
        "source": outcome.source,
        "reason": outcome.reason,
        "errors": outcome.errors,
    }
    return outcome.delivery.family, "rejected", outcome.tenant or "default", item


async def write(
    connection: asyncpg.Connection, family: str, content: dict[str, Any]
) -> tuple[UUID, int]:
    """Add the row to the transaction; returns its id, and the bytes of its payload as JSON."""
    entry_id = uuid7()
    text = orjson.dumps(content, default=as_text)
    await connection.execute(
        "INSERT INTO outbox (id, family, payload) VALUES ($1, $2, $3::text::json)",
        entry_id,
        family,
        text.decode(),
    )
    return entry_id, len(text)


async def delete(connection: asyncpg.Connection, ids: Iterable[UUID]) -> None:
    """Remove rows whose confirmations the broker has."""
    await connection.execute("DELETE FROM outbox WHERE id = ANY($1::uuid[])", list(ids))


async def claim(
    connection: asyncpg.Connection,
    older_than: float,
    most_rows: int,
    most_bytes: int,
    behind: tuple[datetime, UUID] | None = None,
) -> tuple[list[OutboxEntry], bool]:
    """The oldest rows that nobody has published for this many seconds, and whether there may be more behind them.

    At least one, if there is any; `most_bytes` of payload are all that others are added to. None while another sweeper
    is at work. `behind`: only those behind this place. The lock ends with the transaction.
    """
    if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", SWEEP_LOCK):
        return [], False
    created_at, entry_id = behind or (None, None)
    rows = await connection.fetch(_OLDEST, older_than, most_rows, most_bytes, created_at, entry_id)
    entries = [
        OutboxEntry(
            row["id"], row["family"], orjson.loads(row["text"]), row["created_at"], row["size"]
        )
        for row in rows
        if row["text"] is not None
    ]
    return entries, len(rows) == most_rows or len(entries) < len(rows)


async def count(connection: asyncpg.Connection) -> int:
    """How many rows wait."""
    waiting: int = await connection.fetchval("SELECT count(*) FROM outbox")
    return waiting
