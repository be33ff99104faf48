"""What goes over the wire in one AMQP message: one event, or many of one family in batch mode."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from contracts.envelope import CONTENT_TYPE, CONTENT_TYPE_BATCH
from contracts.publishing.ledger import Pending
from contracts.registry import contract_types

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
        content_type, body = CONTENT_TYPE, first.wire
    else:
        content_type = CONTENT_TYPE_BATCH
        body = b"[" + b",".join(pending.wire for pending in pendings) + b"]"
    correlation_id = first.key[1]
    for pending in pendings:
        pending.correlation_id = correlation_id
    return Parcel(first.type, content_type, body, correlation_id, tuple(pendings))


class Batcher:
    """Gathers events by family until a batch is full, or until the first of them has waited long enough.

    It hands each batch on as a parcel. With no linger at all every event is a parcel of its own.
    """

    def __init__(
        self, send: Callable[[Parcel], None], linger: float | None, max_events: int, max_bytes: int
    ) -> None:
        self._send = send
        self._linger = linger
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._groups: dict[str, _Group] = {}

    def put(self, pending: Pending) -> None:
        """Take an event that is to be sent."""
        known = contract_types().get(pending.type)
        if self._linger is None or known is None:
            self._send(pack([pending]))
            return
        family = known[0].name
        size = len(pending.body) + len(pending.stamp) + 1
        group = self._groups.get(family)
        if group is not None and group.bytes + size > self._max_bytes:
            self.flush(family)
            group = None
        if group is None:
            timer = asyncio.get_running_loop().call_later(self._linger, self.flush, family)
            group = self._groups[family] = _Group(timer)
        group.pendings.append(pending)
        group.bytes += size
        if len(group.pendings) >= self._max_events or group.bytes > self._max_bytes:
            self.flush(family)

    def flush(self, family: str) -> None:
        """Send what waits of a family."""
        group = self._groups.pop(family, None)
        if group is not None:
            group.timer.cancel()
            # One that nobody waits for any more, while it waited to be sent again, has no body.
            if left := [pending for pending in group.pendings if pending.body]:
                self._send(pack(left))

    def flush_all(self) -> None:
        """Send everything that waits."""
        for family in list(self._groups):
            self.flush(family)


@dataclass(slots=True)
class _Group:
    """Events of one family that wait for company."""

    timer: asyncio.TimerHandle
    pendings: list[Pending] = field(default_factory=list)
    bytes: int = 2
