"""The books of a torture run: one entry a message, a few bytes each, so that millions of them fit into memory.

An entry is found without a search: its number is part of the id that the message carries. Promises that what is
written down of a message is never lost, and that an id which this run did not make is never taken for one of its own.
"""

import random
import time
from array import array
from collections.abc import Callable
from enum import IntEnum
from uuid import UUID

SENT, ACCEPTED, ASKED, HEARD, ANSWERED, ROW, LETTER = (1 << bit for bit in range(7))
"""What is known of a message: it was handed to a connection; the broker confirmed it; a reply was asked for; its
confirmation was heard on the exchange of confirmations; its reply came; a row holds it; a dead letter holds it."""

_NUMBER_BITS = 40
_TAG_BITS = 74 - _NUMBER_BITS


class Kind(IntEnum):
    """What has to become of a message."""

    GOOD = 0
    """One row."""
    TWIN = 1
    """One of a pair with one key and the same content: one row for both."""
    RIVAL = 2
    """One of a pair with one id and different content, published at the same time: one row, one dead letter."""
    UNDECODABLE = 3
    INVALID = 4
    UNKNOWN_TYPE = 5
    UNROUTABLE = 6
    CONFLICT = 7
    HOSTILE = 8
    """Undecodable properties: nobody can be told of it."""

    @property
    def bad(self) -> bool:
        """Whether it must become a dead letter."""
        return self >= Kind.UNDECODABLE

    @property
    def reason(self) -> str:
        """Why it becomes a dead letter, if it does."""
        match self:
            case Kind.RIVAL:
                return "conflict"
            case Kind.HOSTILE:
                return "undecodable"
            case _:
                return self.name.lower()

    @property
    def paired(self) -> bool:
        """Whether it is judged together with its neighbour."""
        return self in (Kind.TWIN, Kind.RIVAL)


class Ledger:
    """What was published, confirmed, heard and found."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.kinds = bytearray()
        self.states = bytearray()
        self._clock = clock
        self._begin = int(clock() * 1000)
        self._offsets = array("I")
        self._tag = random.SystemRandom().getrandbits(_TAG_BITS)
        self.sends = 0
        """How often a message was published, repetitions included."""
        self.sent = 0
        self.done = 0
        """Messages that were published, and of these the ones of which the workers have told."""
        self.outcomes = {"persisted": 0, "duplicate": 0, "rejected": 0}
        self.anonymous = 0
        """Rejections heard that name no id."""

    def __len__(self) -> int:
        return len(self.states)

    @property
    def under_way(self) -> int:
        """Messages that were published and of which no worker has told."""
        return self.sent - self.done

    def issue(self, kind: Kind = Kind.GOOD) -> UUID:
        """The id of a new message: a UUIDv7 whose random bits are the run's tag and the entry's number."""
        number = len(self.states)
        self.states.append(0)
        self.kinds.append(kind)
        self._offsets.append(int(self._clock() * 1000) - self._begin)
        return self.id_of(number)

    def issue_pair(self, kind: Kind) -> tuple[UUID, UUID]:
        """The ids of two messages that are judged together; they stand side by side."""
        return self.issue(kind), self.issue(kind)

    def id_of(self, number: int) -> UUID:
        """The id of an entry."""
        chance = self._tag << _NUMBER_BITS | number
        value = (self._begin + self._offsets[number]) << 80 | 0x7 << 76 | (chance >> 62) << 64
        return UUID(int=value | 0b10 << 62 | chance & 0x3FFF_FFFF_FFFF_FFFF)

    def number_of(self, key: UUID) -> int | None:
        """The entry with this id; None where it is not one of this run's."""
        number = key.int & ((1 << _NUMBER_BITS) - 1)
        return number if number < len(self.states) and self.id_of(number) == key else None

    def find(self, text: str | None) -> int | None:
        """The same for an id as text, whatever text that is."""
        try:
            return self.number_of(UUID(text)) if text else None
        except ValueError:
            return None

    # --- what is known ---

    def note_sent(self, key: UUID, *, asked: bool = False) -> None:
        """It is about to be handed to a connection."""
        number = self._own(key)
        self.sends += 1
        if not self.states[number] & SENT and self.kinds[number] != Kind.HOSTILE:
            self.sent += 1
        self.states[number] |= SENT | (ASKED if asked else 0)

    def note_accepted(self, key: UUID) -> None:
        """The broker has confirmed it."""
        self.states[self._own(key)] |= ACCEPTED

    def note_heard(self, text: str | None, outcome: str) -> None:
        """A confirmation on the exchange of confirmations names this id."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        number = self.find(text)
        if number is None:
            self.anonymous += text is None
        elif self._fits(number, outcome):
            self._mark(number, HEARD)

    def note_answered(self, text: str | None) -> None:
        """A reply names this id, or is correlated with it."""
        number = self.find(text)
        if number is not None:
            self._mark(number, ANSWERED)

    def is_done(self, key: UUID) -> bool:
        """Whether workers have told of it."""
        return self._is_done(self._own(key))

    def add(self, number: int, what: int) -> bool:
        """A row or letter holds it; False where one did already."""
        known = bool(self.states[number] & what)
        self.states[number] |= what
        return not known

    def _fits(self, number: int, outcome: str) -> bool:
        """A good message is settled by a good outcome: a conflict is told under the id that it fought for."""
        return Kind(self.kinds[number]).bad or outcome != "rejected"

    def _mark(self, number: int, what: int) -> None:
        before = self._is_done(number)
        self.states[number] |= what
        self.done += self._is_done(number) and not before

    def _is_done(self, number: int) -> bool:
        wanted = ANSWERED if self.kinds[number] >= Kind.RIVAL else HEARD
        return bool(self.states[number] & wanted)

    def _own(self, key: UUID) -> int:
        number = self.number_of(key)
        if number is None:
            raise ValueError(f"{key} was not issued by this ledger")
        return number
