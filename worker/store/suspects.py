"""Messages that may have killed a worker: attempts to handle one alone, recorded before it is handled.

Promises that an attempt which ends in any way counts no more, and that one which ends the process is counted. A row
says when the last attempt began and when it ended, and is kept for a day after that, for whoever wants to know.
"""

from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b

from worker.message import Delivery
from worker.store.database import Database

MOST_ATTEMPTS = 3
"""Recorded attempts without an end after which a message becomes a dead letter."""

_END = "UPDATE suspects SET attempts = 0, ended_at = now() WHERE digest = ANY($1)"
_FORGET = (
    "DELETE FROM suspects WHERE digest IN (SELECT digest FROM suspects "
    "WHERE ended_at < now() - interval '1 day' FOR UPDATE SKIP LOCKED)"
)
_BEGIN = (
    "INSERT INTO suspects AS s (digest, family, attempts) VALUES ($1, $2, 1) "
    "ON CONFLICT (digest) DO UPDATE SET attempts = s.attempts + 1, started_at = now(), ended_at = NULL "
    "WHERE s.attempts < $3 OR s.started_at = $4 "
    "RETURNING attempts"
)
_LAST_BEGAN = "SELECT started_at FROM suspects WHERE digest = $1"


def digest(delivery: Delivery) -> bytes:
    """What a suspect is known by over redeliveries: family, AMQP message id and body."""
    state = blake2b(digest_size=16)
    for part in (delivery.family, delivery.properties.message_id or ""):
        state.update(part.encode() + b"\0")
    state.update(delivery.body)
    return state.digest()


async def end_late(database: Database, ended: Sequence[bytes]) -> None:
    """Record ends that could not be recorded when they came, by the digests of their messages."""
    async with database.transaction() as connection:
        await connection.execute(_END, list(ended))


async def begin(
    database: Database,
    delivery: Delivery,
    ended: Sequence[bytes] = (),
    dead_since: datetime | None = None,
) -> int | datetime:
    """Record that an attempt begins; returns how many have begun without an end, this one counted.

    Where these would be more than MOST_ATTEMPTS, nothing is recorded, and when the last of them began is returned:
    they may be other workers' that still run. It is recorded once that is `dead_since`.
    `ended`: digests of attempts whose end could not be recorded when it came.
    """
    async with database.transaction() as connection:
        if ended:
            await connection.execute(_END, list(ended))
        await connection.execute(_FORGET)
        key = digest(delivery)
        attempts: int | None = await connection.fetchval(
            _BEGIN, key, delivery.family, MOST_ATTEMPTS, dead_since
        )
        if attempts is not None:
            return attempts
        last_began: datetime = await connection.fetchval(_LAST_BEGAN, key)
    return last_began


async def end(database: Database, delivery: Delivery) -> bool:
    """Record that this attempt ended, however it did: those before it count no more either."""
    async with database.transaction() as connection:
        await connection.execute(_END, [digest(delivery)])
    return True
