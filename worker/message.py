"""The nouns of the pipeline: Delivery, Message, and Outcome = Accepted | Rejected | Released.

A failure is a value here: decoding gives a Message or a Rejected, the transaction gives one Outcome for each.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from contracts.confirmation import Reason
from contracts.envelope import EventData


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

    @property
    def delivery_count(self) -> int:
        """How often the broker has handed it out before, as far as the broker says."""
        if not self.redelivered:
            return 0  # from 4.0 the broker does not overwrite what a publisher has made up
        count = (self.properties.headers or {}).get("x-delivery-count")
        return count if isinstance(count, int) else 1


@dataclass(slots=True)
class Message:
    """One event that passed its contract.

    `data` is its JSON as received (NUL characters replaced), `fields` the same as validated values. `key` holds the
    values of the idempotency key. `digest` is 16 bytes over type, tenant and data.
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

    @property
    def key_text(self) -> str:
        """The key as confirmations show it; the parts of a pair are joined by a slash."""
        return "/".join(str(part) for part in self.key)


@dataclass(slots=True)
class Accepted:
    """A message that is stored: by this transaction (`persisted`) or before it (`duplicate`)."""

    message: Message
    outcome: Literal["persisted", "duplicate"]


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


@dataclass(slots=True)
class Released:
    """A delivery that was given back to its queue untouched."""

    delivery: Delivery


Decoded = Message | Rejected
Outcome = Accepted | Rejected | Released


@dataclass(slots=True)
class Batch:
    """What one transaction holds: whole deliveries, and what they were decoded into."""

    deliveries: list[Delivery]
    decoded: list[Decoded] = field(default_factory=list)
