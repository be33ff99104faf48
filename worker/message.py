"""The nouns of the pipeline: Delivery, Message, and Outcome = Accepted | Rejected.

A failure is a value here: decoding gives a Message or a Rejected, the transaction gives one Outcome for each. What is
neither stored nor rejected has no outcome: its delivery goes back to its queue.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

from contracts.confirmation import Reason
from contracts.envelope import EventData

_SMALL_BODY = 64 * 1024


@dataclass(slots=True)
class Properties:
    """The AMQP basic properties of a delivery, decoded; None where the publisher set none."""

    content_type: str | None = None
    content_encoding: str | None = None
    headers: dict[str, Any] | None = None
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: int | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None


@dataclass(slots=True)
class Delivery:
    """One AMQP delivery: a body and all that came with it.

    `tag` acknowledges it on the channel that it came from, and only there. `fault` says why its properties could not
    be decoded, where they could not. `family` is the family whose queue it was read from (for a message that the
    broker dead-lettered: the family that it was meant for).
    """

    family: str
    tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    body: bytes
    properties: Properties
    properties_raw: bytes
    fault: str | None = None
    retried: bool = False
    """An attempt to commit it may have succeeded already; a stored row then means persisted, not duplicate."""
    unpacked: int = 0
    """Bytes of the body after decompression, once it has been decoded."""
    events: int = 1
    """How many events the body holds, once it has been decoded."""

    @property
    def is_small(self) -> bool:
        """Whether decoding it takes less than a heartbeat may be late by, whatever is in it."""
        return len(self.body) <= _SMALL_BODY and not self.properties.content_encoding

    @property
    def delivery_count(self) -> int:
        """How often the broker has handed it out before, as far as the broker says."""
        if not self.redelivered:
            return 0  # from 4.0 the broker does not overwrite what a publisher has made up
        count = (self.properties.headers or {}).get("x-delivery-count")
        return count if isinstance(count, int) else 1


class Number(NamedTuple):
    """An event's place in what its source published: `sequence` counts from 1 within the epoch."""

    tenant: str
    source: str
    epoch: UUID
    sequence: int


@dataclass(slots=True)
class Message:
    """One event that passed its contract.

    `data` is its JSON as received (NUL characters replaced), `fields` the same as validated values; arrays and objects
    of large facts are `orjson.Fragment`s in both, JSON that is written already. `key` holds the values of the
    idempotency key. `digest` is 16 bytes over type, tenant and data. `number` is for the loss ledger.
    """

    delivery: Delivery
    index: int | None
    type: str
    id: UUID
    tenant: str
    source: str
    time: datetime
    key: tuple[UUID, ...]
    data: dict[str, Any]
    fields: EventData
    digest: bytes
    extensions: dict[str, Any] | None
    number: Number | None = None

    @property
    def key_text(self) -> str:
        """The key as confirmations show it; the parts of a pair are joined by a slash."""
        return str(self.key[0]) if len(self.key) == 1 else "/".join(map(str, self.key))


@dataclass(slots=True)
class Accepted:
    """A message that is stored: by this transaction (`persisted`) or before it (`duplicate`)."""

    message: Message
    outcome: Literal["persisted", "duplicate"]
    fresh: bool = False
    """Whether this transaction wrote its row; a redelivered message may be `persisted` by an earlier one."""


@dataclass(slots=True)
class Rejected:
    """A message that can never be stored: it becomes a dead letter with its whole body and every reason.

    `body` is the body of the delivery as it came; for one event of a batch, that event as JSON (`index` says which).
    """

    delivery: Delivery
    index: int | None
    reason: Reason
    errors: list[dict[str, Any]]
    body: bytes
    type: str | None = None
    id: str | None = None
    key: str | None = None
    source: str | None = None
    tenant: str | None = None
    numbers: Sequence[Number] = ()
    """Of the event, or of all events of a batch that is rejected as a whole, as far as they can be read."""


Decoded = Message | Rejected
Outcome = Accepted | Rejected
