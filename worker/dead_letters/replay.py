"""Publishes letters again, where they were published to first, and marks them afterwards.

Promises: only what the broker has confirmed is marked (a crash in between replays twice, which is harmless: the tables
know the message); a letter that cannot be published is named, with the reason, and hides none behind it. Whether a
replay was stored is the worker's to say: it resolves the letter.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

from contracts.envelope import CONTENT_TYPE, CONTENT_TYPE_BATCH
from worker.broker import topology
from worker.broker.outgoing import Fate, Outgoing
from worker.broker.pace import Pace
from worker.broker.sender import Sender
from worker.dead_letters import bodies, search
from worker.dead_letters.letter import Letter
from worker.errors import Unavailable
from worker.store.database import Database
from worker.store.letters import HEADER

_INNER = (topology.UNROUTED, topology.DEAD_LETTERS)
_SHORT_STRING = 255
_MARK_ATTEMPTS = 5


class Unreplayable(Exception):
    """A letter that cannot be published; the text says why."""


@dataclass
class Replayed:
    """What a replay did so far."""

    published: dict[UUID, int] = field(default_factory=dict)
    """Each letter that the broker has, with how often it had been seen before."""
    failures: dict[UUID, str] = field(default_factory=dict)
    """Each letter that was not published, and why."""
    skipped: int = 0
    """Letters that somebody resolved in the meantime."""


@dataclass(frozen=True)
class Route:
    """Where a letter would be published to."""

    exchange: str
    routing_key: str


def route(letter: Letter, *, by_type: bool, max_bytes: int) -> Route:
    """Where a letter goes: where it was first published to; to its type where that is asked for, unknown, or was edited.

    Raises Unreplayable.
    """
    edited = letter.edited_body
    known = letter.exchange not in _INNER and bool(letter.exchange or letter.routing_key)
    if known and not by_type and edited is None:
        return Route(letter.exchange, letter.routing_key)
    original = bodies.event_types(letter.text(max_bytes))
    present = original if edited is None else bodies.event_types(edited)
    retyped = letter.exchange == topology.MESSAGES and present[:1] != original[:1]
    if known and not by_type and not (retyped and present):
        return Route(letter.exchange, letter.routing_key)
    if not present:
        raise Unreplayable("its body names no type to publish it by")
    return Route(topology.MESSAGES, present[0])


def message(letter: Letter, *, by_type: bool, max_bytes: int) -> Outgoing:
    """The message that replays a letter. Of its properties only content type and content encoding are carried over."""
    to = route(letter, by_type=by_type, max_bytes=max_bytes)
    content_type: str | None
    encoding: str | None = None
    if letter.edited_body is not None:
        body = letter.edited_body  # stored without an encoding
        content_type = CONTENT_TYPE_BATCH if bodies.is_batch(body) else CONTENT_TYPE
    else:
        body = letter.body
        content_type = CONTENT_TYPE  # one event of a batch travels alone
        if letter.batch_index is None:
            content_type = _short(letter.content_type)
            encoding = _short(letter.content_encoding)
    return Outgoing(
        to.exchange,
        to.routing_key,
        body,
        content_type=content_type,
        content_encoding=encoding,
        headers={HEADER: str(letter.id)},
    )


class Replay:
    """One replay of many letters; `done` tells how far it came, also where it ended early."""

    def __init__(
        self,
        database: Database,
        broker_url: str,
        *,
        name: str,
        max_bytes: int,
        rate: float | None = None,
        by_type: bool = False,
        user_id: str | None = None,
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.done = Replayed()
        self._database = database
        self._max_bytes = max_bytes
        self._by_type = by_type
        self._pace = Pace(rate)
        self._advance = advance
        self._sender = Sender(broker_url, name=name, on_fate=self._ended, user_id=user_id)
        self._letters: dict[Outgoing, Letter] = {}
        self._unmarked: list[UUID] = []
        self._exchanges: dict[str, bool] = {}

    async def __aenter__(self) -> Self:
        await self._sender.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._sender.__aexit__(None, None, None)

    async def run(self, wanted: Sequence[tuple[UUID, int]], state: search.Chosen) -> Replayed:
        """Replay these letters, but for those no longer in this state. Raises Unavailable with all that was published marked."""
        async for letters in search.chunks(self._database, wanted):
            present = [letter for letter in letters if search.in_state(letter, state)]
            self.done.skipped += len(letters) - len(present)
            self._advance(len(letters) - len(present))
            try:
                for letter in present:
                    await self._send(letter)
                await self._sender.finish()
            finally:
                await self._mark()
        return self.done

    async def _send(self, letter: Letter) -> None:
        try:
            outgoing = message(letter, by_type=self._by_type, max_bytes=self._max_bytes)
        except Unreplayable as error:
            return self._failed(letter.id, str(error))
        if not await self._exists(outgoing.exchange):
            return self._failed(letter.id, f"there is no exchange {outgoing.exchange!r}")
        await self._pace.turn()
        self._letters[outgoing] = letter
        await self._sender.send(outgoing)
        return None

    async def _exists(self, exchange: str) -> bool:
        """Publishing to an exchange that is not there would close the channel under all others."""
        if exchange not in self._exchanges:
            connection = self._sender.connection
            self._exchanges[exchange] = await topology.exchange_exists(connection, exchange)
        return self._exchanges[exchange]

    def _ended(self, outgoing: Outgoing) -> None:
        letter = self._letters.pop(outgoing)
        if outgoing.fate is Fate.ACCEPTED:
            self._unmarked.append(letter.id)
            self.done.published[letter.id] = letter.seen
            self._advance(1)
        else:
            where = f"exchange {outgoing.exchange!r}, routing key {outgoing.routing_key!r}"
            self._failed(letter.id, f"{outgoing.why} ({where})")

    def _failed(self, letter_id: UUID, why: str) -> None:
        self.done.failures[letter_id] = why
        self._advance(1)

    async def _mark(self) -> None:
        ids, self._unmarked = self._unmarked, []
        for _ in range(_MARK_ATTEMPTS - 1):
            try:
                return await mark(self._database, ids)
            except (
                Unavailable
            ):  # such as a deadlock with the worker that stores these very messages
                await asyncio.sleep(random.uniform(0.05, 0.2))  # noqa: S311 (jitter)
        return await mark(self._database, ids)


async def mark(database: Database, ids: Sequence[UUID]) -> None:
    """Count a replay of each of these letters, whatever became of it by now."""
    if ids:
        async with database.transaction() as connection:
            await connection.execute(
                "UPDATE dead_letters d SET replays = d.replays + 1, last_replayed_at = now() "
                "FROM (SELECT id FROM dead_letters WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE) locked "
                "WHERE d.id = locked.id",
                list(ids),
            )


async def routes(
    database: Database, wanted: Sequence[tuple[UUID, int]], *, by_type: bool, max_bytes: int
) -> Counter[tuple[str, str, str, str]]:
    """What a replay would publish: how many letters of each family and reason go to which exchange and routing key."""
    counts: Counter[tuple[str, str, str, str]] = Counter()
    async for letters in search.chunks(database, wanted):
        for letter in letters:
            try:
                to = route(letter, by_type=by_type, max_bytes=max_bytes)
            except Unreplayable as error:
                counts[letter.family, letter.reason, "cannot be replayed", str(error)] += 1
            else:
                counts[letter.family, letter.reason, to.exchange, to.routing_key] += 1
    return counts


def _short(text: str | None) -> str | None:
    """The text if AMQP has room for it."""
    return text if text and len(text.encode()) <= _SHORT_STRING else None
