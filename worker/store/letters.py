"""Dead letters inside the batch's transaction: writing them, and resolving those whose replay was stored.

Promises: a redelivery of a rejected message is the same letter (and counts in `seen`); a letter is resolved only by a
message whose body is the letter's own, so that nobody can resolve another's.
"""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from worker.body import replace_nul
from worker.errors import Invalid
from worker.message import Delivery, Number, Properties, Rejected
from worker.store.database import translate
from worker.store.ranges import fold

HEADER = "x-dead-letter-id"

_COLUMNS = (
    ("id", "uuid"),
    ("tenant_id", "text"),
    ("exchange", "text"),
    ("routing_key", "text"),
    ("message_id", "text"),
    ("batch_index", "int4"),
    ("family", "text"),
    ("type", "text"),
    ("source", "text"),
    ("reason", "text"),
    ("errors", "jsonb"),
    ("headers", "jsonb"),
    ("properties", "jsonb"),
    ("properties_raw", "bytea"),
    ("body", "bytea"),
    ("sequences", "jsonb"),
)
_WRITE = (
    f"INSERT INTO dead_letters AS d ({', '.join(name for name, _ in _COLUMNS)}) "  # noqa: S608 (constant names)
    f"SELECT {', '.join(f'u.{n}::jsonb' if t == 'jsonb' else f'u.{n}' for n, t in _COLUMNS)} FROM unnest("
    + ", ".join(
        f"${at}::{'text' if kind == 'jsonb' else kind}[]"
        for at, (_, kind) in enumerate(_COLUMNS, 1)
    )
    + f") AS u({', '.join(name for name, _ in _COLUMNS)}) "
    "ON CONFLICT (id) DO UPDATE SET seen = d.seen + 1, last_seen_at = now(), reason = excluded.reason, "
    "errors = excluded.errors, resolved_at = NULL, resolution = NULL, "
    "sequences = coalesce(d.sequences, excluded.sequences)"
)


def letter_id(family: str, body: bytes, index: int | None, message_id: str | None) -> UUID:
    """The id of a letter: a digest, so that the same message is the same letter."""
    digest = blake2b(digest_size=16)
    for part in (family.encode(), (message_id or "").encode(), str(index).encode(), body):
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return UUID(bytes=digest.digest())


def claimed_letter(delivery: Delivery) -> UUID | None:
    """The letter that a delivery says it replays."""
    claimed = (delivery.properties.headers or {}).get(HEADER)
    try:
        return UUID(claimed) if isinstance(claimed, str) else None
    except ValueError:
        return None


async def verify(connection: asyncpg.Connection, deliveries: Sequence[Delivery]) -> dict[int, UUID]:
    """Of the deliveries that name a letter, those that carry its body: id() of the delivery to the letter's id."""
    claims = [(d, letter) for d in deliveries if (letter := claimed_letter(d)) is not None]
    if not claims:
        return {}
    rows = await connection.fetch(
        "SELECT u.place FROM unnest($1::uuid[], $2::bytea[]) WITH ORDINALITY AS u(id, body, place) "
        "JOIN dead_letters d ON d.id = u.id AND (d.body = u.body OR d.edited_body = u.body)",
        [letter for _, letter in claims],
        [delivery.body for delivery, _ in claims],
    )
    genuine = [claims[row["place"] - 1] for row in rows]
    return {id(delivery): letter for delivery, letter in genuine}


async def write(
    connection: asyncpg.Connection, rejected: Sequence[Rejected], replayed: dict[int, UUID]
) -> None:
    """Write these rejections; one that is a replay updates its letter."""
    rows: dict[UUID, tuple[Any, ...]] = {}
    for item in rejected:
        letter = replayed.get(id(item.delivery)) if item.index is None else None
        row = _row(item, letter)
        rows[row[0]] = row
    if rows:
        in_order = sorted(rows.values(), key=lambda row: row[0].bytes)
        await connection.execute(_WRITE, *map(list, zip(*in_order, strict=True)))


async def write_one_by_one(
    connection: asyncpg.Connection, rejected: Sequence[Rejected], replayed: dict[int, UUID]
) -> None:
    """The same, for a batch in which PostgreSQL refused something: what it will not take beside a body is left out."""
    for item in rejected:
        try:
            async with connection.transaction():
                await write(connection, [item], replayed)
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            if not isinstance(translate(error), Invalid):
                raise
            bare = replace(
                item, errors=item.errors[:1], type=None, source=None,
                delivery=replace(item.delivery, properties=Properties(), exchange="", routing_key=""),
            )  # fmt: skip
            letter = replayed.get(id(item.delivery))
            again = {id(bare.delivery): letter} if letter else {}
            await write(connection, [bare], again)


async def resolve(connection: asyncpg.Connection, letters: dict[UUID, bytes]) -> None:
    """Mark letters whose replay is stored: `edited` where the edited body was what came back."""
    if letters:
        ids = sorted(letters, key=lambda letter: letter.bytes)
        await connection.execute(
            "UPDATE dead_letters d SET resolved_at = now(), resolution = "
            "CASE WHEN d.edited_body = u.body AND d.body <> u.body THEN 'edited' ELSE 'replayed' END "
            "FROM unnest($1::uuid[], $2::bytea[]) AS u(id, body) WHERE d.id = u.id AND d.resolved_at IS NULL",
            ids,
            [letters[letter] for letter in ids],
        )


def _row(item: Rejected, letter: UUID | None) -> tuple[Any, ...]:
    delivery = item.delivery
    properties = delivery.properties
    return (
        letter or letter_id(delivery.family, item.body, item.index, properties.message_id),
        item.tenant,
        _text(delivery.exchange),
        _text(delivery.routing_key),
        _text(properties.message_id),
        item.index,
        delivery.family,
        _cut(item.type),
        _cut(item.source),
        item.reason,
        _json(item.errors),
        _json(properties.headers or {}),
        _json(
            {
                name: value
                for name in _PROPERTIES
                if (value := getattr(properties, name)) is not None
            }
        ),
        delivery.properties_raw,
        item.body,
        _sequences(item.numbers),
    )


def _sequences(numbers: Sequence[Number]) -> str | None:
    """Which numbers the letter holds, as loss_ledger has them."""
    if not numbers:
        return None
    by_epoch: dict[tuple[str, str, UUID], list[int]] = {}
    for number in numbers:
        by_epoch.setdefault(number[:3], []).append(number.sequence)
    return _json(
        [
            {
                "tenant_id": tenant,
                "source": source,
                "epoch": epoch,
                "ranges": [list(one) for one in fold(found)[0]],
            }
            for (tenant, source, epoch), found in by_epoch.items()
        ]
    )


_PROPERTIES = (
    "content_type",
    "content_encoding",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "timestamp",
    "type",
    "user_id",
    "app_id",
    "cluster_id",
)


def _text(value: str | None) -> str | None:
    return value.replace("\0", "\u2400") if value else value


def _cut(value: str | None) -> str | None:
    return value[:255] if value else value


def _json(value: Any) -> str:
    return orjson.dumps(replace_nul(value)[0], default=str, option=orjson.OPT_NON_STR_KEYS).decode()
