"""Messages that may have killed a worker: attempts to handle one alone, recorded before it is handled.

Promises that an attempt which ends in any way counts no more, and that one which ends the process is counted. A row
says when the last attempt began and when it ended, and is kept for a day after that, for whoever wants to know.
"""

from collections.abc import Sequence
from hashlib import blake2b

from worker.errors import Unavailable
from worker.message import Delivery
from worker.store.database import Database

MOST_ATTEMPTS = 3
"""Recorded attempts without an end after which a message becomes a dead letter."""

_MAY_STILL_RUN = 5.0
"""Seconds; how old the last of these must be for that: of a body that was published several times, workers that live may be
handling one copy each at this moment."""

_END = "UPDATE suspects SET attempts = 0, ended_at = now() WHERE digest = ANY($1)"
_FORGET = (
    "DELETE FROM suspects WHERE digest IN (SELECT digest FROM suspects "
    "WHERE ended_at < now() - interval '1 day' FOR UPDATE SKIP LOCKED)"
)
_BEGIN = (
    "INSERT INTO suspects AS s (digest, family, attempts) VALUES ($1, $2, 1) "
    "ON CONFLICT (digest) DO UPDATE SET attempts = s.attempts + 1, started_at = now(), ended_at = NULL "
    "WHERE s.attempts < $3 OR s.started_at < now() - make_interval(secs => $4) "
    "RETURNING attempts"
)


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


async def begin(database: Database, delivery: Delivery, ended: Sequence[bytes] = ()) -> int:
    """Record that an attempt begins; returns how many have begun without an end, this one counted.

    `ended`: digests of attempts whose end could not be recorded when it came. Raises Unavailable while those that are
    on record may be other workers' that still run.
    """
    async with database.transaction() as connection:
        if ended:
            await connection.execute(_END, list(ended))
        await connection.execute(_FORGET)
        attempts: int | None = await connection.fetchval(
            _BEGIN, digest(delivery), delivery.family, MOST_ATTEMPTS, _MAY_STILL_RUN
        )
    if attempts is None:
        raise Unavailable("other workers may be handling copies of a message that is handled alone")
    return attempts


async def end(database: Database, delivery: Delivery) -> bool:
    """Record that this attempt ended, however it did: those before it count no more either."""
    async with database.transaction() as connection:
        await connection.execute(_END, [digest(delivery)])
    return True
