"""What goes over the wire in one AMQP message: one event, or many of one family in batch mode. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.envelope import CONTENT_TYPE, CONTENT_TYPE_BATCH
from contracts.publishing.ledger import Pending

MAX_PARCEL_BYTES = 1_000_000
"""Largest batch of several events: a JSON value takes two bytes or more, so MAX_JSON_VALUES cannot be passed."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One AMQP message to send, and the events that are in it."""

    routing_key: str
    content_type: str
    body: bytes
    correlation_id: str
    pendings: tuple[Pending, ...]

    @property
    def asked(self) -> bool:
        """Whether to ask the worker for an answer."""
        return any(pending.asked for pending in self.pendings)


def pack(pendings: Sequence[Pending]) -> Parcel:
    """Events of one family as one message; its correlation id is the first event's id."""
    first = pendings[0]
    if len(pendings) == 1:
        content_type, body = CONTENT_TYPE, first.body
    else:
        content_type = CONTENT_TYPE_BATCH
        body = b"[" + b",".join(pending.body for pending in pendings) + b"]"
    correlation_id = first.key[1]
    for pending in pendings:
        pending.correlation_id = correlation_id
    return Parcel(first.type, content_type, body, correlation_id, tuple(pendings))


class Batcher:
    """Gathers events by family until a batch is full."""

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._waiting: dict[str, list[Pending]] = {}
        self._bytes: dict[str, int] = {}

    def add(self, family: str, pending: Pending) -> list[list[Pending]]:
        """Put an event to those of its family; the batches that are full now."""
        size = len(pending.body) + 1
        full = []
        if self._bytes.get(family, 2) + size > self._max_bytes:
            full += self.take(family)
        self._waiting.setdefault(family, []).append(pending)
        self._bytes[family] = self._bytes.get(family, 2) + size
        if len(self._waiting[family]) >= self._max_events or self._bytes[family] > self._max_bytes:
            full += self.take(family)
        return full

    def take(self, family: str) -> list[list[Pending]]:
        """What waits of a family, full or not: one batch, or none."""
        self._bytes.pop(family, None)
        waiting = self._waiting.pop(family, None)
        return [waiting] if waiting else []

    def families(self) -> list[str]:
        """The families of which something waits."""
        return list(self._waiting)
