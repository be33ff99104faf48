"""What was published and is not answered yet, and what the answers were.

Owns the matching of replies to events, by source and id. Promises bounded memory: at most so many events and bytes
are unanswered, and who comes later waits for room. Events that the broker has and whose answer nobody waits for
never make anybody wait: they are forgotten, the oldest first, when room is needed.
"""

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass

from contracts.confirmation import ErrorDetail, Outcome, PersistenceConfirmed
from contracts.publishing.errors import PublishingError

EventKey = tuple[str, str]
"""Source and id: what makes an event unique for CloudEvents."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker said about an event."""

    outcome: Outcome
    reason: str = ""
    errors: tuple[ErrorDetail, ...] = ()


@dataclass(slots=True, eq=False)
class Pending:
    """An event on its way.

    `accepted` is done when the broker has it (None) or never will (an error), `answer` when a worker has said what
    became of it, or never will. Errors are values here, so that nobody has to look at them.
    """

    key: EventKey
    type: str
    body: bytes
    fingerprint: int
    accepted: asyncio.Future[PublishingError | None]
    answer: asyncio.Future[Answer | PublishingError]
    asked: bool
    """Whether it was sent with the wish to hear what became of it."""
    stamp: bytes = b""
    """Members that the publisher adds to the body: its number for the loss ledger."""
    correlation_id: str = ""
    watchers: int = 0

    @property
    def wire(self) -> bytes:
        """The event as it travels: the body, with the stamp as its first members."""
        return b"{" + self.stamp + self.body[1:] if self.stamp else self.body

    @property
    def settled(self) -> bool:
        """Nothing more has to be sent: a worker has answered, or the event was given up."""
        return self.answer.done() or (self.accepted.done() and self.accepted.result() is not None)


class Ledger:
    """The unanswered events of one publisher, and its latest answers."""

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._events = 0
        self._bytes = 0
        self._pending: dict[EventKey, Pending] = {}
        self._unwatched: OrderedDict[EventKey, Pending] = OrderedDict()  # with the broker
        self._answers: OrderedDict[EventKey, tuple[int, Answer]] = OrderedDict()  # unwatched ones
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._for_quiet: list[asyncio.Future[None]] = []

    def find(self, key: EventKey) -> Pending | None:
        """The event as it stands, if it is unanswered."""
        return self._pending.get(key)

    def take_answer(self, key: EventKey, body: bytes) -> Answer | None:
        """The answer to an event that came when nobody waited for it; it is given out once."""
        fingerprint, answer = self._answers.get(key, (0, None))
        if answer is None or fingerprint != hash(body):
            return None
        del self._answers[key]
        return answer

    def room(self, size: int) -> asyncio.Future[None] | None:
        """Take the room for one event; `open` uses it or `give_back` frees it.

        Where there is none: a place in the line. When it is done, the room is taken; `leave` gives it up.
        """
        if not self._line and self._has_room(size):
            self._take(size)
            return None
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append((size, turn))
        return turn

    def leave(self, turn: asyncio.Future[None], size: int) -> None:
        """Leave the line, or free the room where it was just taken."""
        if not turn.cancel():
            self.give_back(size)

    def give_back(self, size: int) -> None:
        """Free room that was taken and is not needed."""
        self._events -= 1
        self._bytes -= size
        self._changed()

    def open(
        self, key: EventKey, event_type: str, body: bytes, *, asked: bool, stamp: bytes = b""
    ) -> Pending:
        """Enter an event for which room was taken."""
        new = asyncio.get_running_loop().create_future
        pending = Pending(key, event_type, body, hash(body), new(), new(), asked, stamp)
        self._pending[key] = pending
        return pending

    def accept(self, pending: Pending) -> None:
        """The broker has it."""
        if not pending.accepted.done():
            pending.accepted.set_result(None)
        self._rest(pending)

    def fail(self, pending: Pending, error: PublishingError) -> None:
        """It is given up, or the answer to what the broker has already: who waits for either hears of it."""
        if not pending.accepted.done():
            pending.accepted.set_result(error)
        elif not pending.answer.done():
            pending.answer.set_result(error)
        self.forget(pending)

    def forget(self, pending: Pending) -> None:
        """No answer is expected any more."""
        if self._pending.get(pending.key) is pending:
            del self._pending[pending.key]
            self._unwatched.pop(pending.key, None)
            self.give_back(len(pending.body))

    def watch(self, pending: Pending, body: bytes) -> None:
        """Somebody waits for the answer: keep the body, in case it has to be sent again."""
        pending.watchers += 1
        self._unwatched.pop(pending.key, None)
        if not pending.body and self._pending.get(pending.key) is pending:
            pending.body = body
            self._bytes += len(body)

    def unwatch(self, pending: Pending) -> None:
        """Somebody has stopped to wait."""
        pending.watchers -= 1
        if pending.accepted.done():
            self._rest(pending)

    def settle(
        self, confirmation: PersistenceConfirmed, correlation_id: str
    ) -> list[tuple[Pending, Answer]]:
        """Give a reply's answers to the events they belong to; those that nobody watched are returned as well."""
        settled = []
        for item in confirmation.items:
            answer = Answer(confirmation.outcome, item.reason or "", tuple(item.errors or ()))
            for pending in self._meant(item.source, item.id, correlation_id):
                self._answer(pending, answer)
                settled.append((pending, answer))
        return settled

    def link_lost(self) -> list[Pending]:
        """Answers of what was sent before cannot come any more: what has to be sent again for them."""
        for pending in list(self._unwatched.values()):
            self.forget(pending)
        return [p for p in self._pending.values() if p.accepted.done() and not p.answer.done()]

    def abandon(self, error: PublishingError) -> int:
        """Give up everything; how many events there were that the broker may not have."""
        left = list(self._pending.values())
        lost = sum(not pending.accepted.done() for pending in left)
        for pending in left:
            if not pending.answer.done():
                pending.answer.set_result(error)
            self.fail(pending, error)
        return lost

    async def quiet(self) -> None:
        """Wait until the broker has everything and nobody waits for an answer."""
        while len(self._pending) > len(self._unwatched):
            change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._for_quiet.append(change)
            await change

    def _meant(
        self, source: str | None, event_id: str | None, correlation_id: str
    ) -> list[Pending]:
        """Whom an item is about: where the worker could read no id, all that was sent in that message."""
        if source is not None and event_id is not None:
            found = self._pending.get((source, event_id))
            return [found] if found else []
        return [p for p in self._pending.values() if p.correlation_id == correlation_id]

    def _answer(self, pending: Pending, answer: Answer) -> None:
        if not pending.answer.done():
            pending.answer.set_result(answer)
        if not pending.accepted.done():  # an answer may overtake the broker's confirm
            pending.accepted.set_result(None)
        if not pending.watchers:
            self._answers[pending.key] = (pending.fingerprint, answer)
            if len(self._answers) > self._max_events:
                self._answers.popitem(last=False)
        self.forget(pending)

    def _rest(self, pending: Pending) -> None:
        """An event that is with the broker, and whose answer nobody waits for, needs no body."""
        if not pending.watchers and self._pending.get(pending.key) is pending:
            self._bytes -= len(pending.body)
            pending.body = b""
            self._unwatched[pending.key] = pending
            self._changed()

    def _has_room(self, size: int) -> bool:
        while self._events >= self._max_events and self._unwatched:
            self.forget(next(iter(self._unwatched.values())))
        return self._events < self._max_events and (
            self._bytes + size <= self._max_bytes or not self._bytes
        )

    def _take(self, size: int) -> None:
        self._events += 1
        self._bytes += size

    def _changed(self) -> None:
        """Let in who waits for room, and look again whether all is quiet."""
        while self._line:
            size, turn = self._line[0]
            if not turn.done():
                if not self._has_room(size):
                    break
                self._take(size)
                turn.set_result(None)
            self._line.popleft()
        for change in self._for_quiet:
            if not change.done():
                change.set_result(None)
        self._for_quiet.clear()
