"""The CloudEvents 1.0 envelope that every message wears, and the base of every contract's `data`.

Owns what an event is on the wire (design page WIRE, "A message"). Promises that an `Event` which an agent builds
here is one that the worker accepts as far as the envelope goes. Source of the rules: CloudEvents 1.0.2, JSON format.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from contracts.fields import Key, Tenant, Timestamp, or_default
from contracts.identifiers import uuid7

CONTENT_TYPE = "application/cloudevents+json"
CONTENT_TYPE_BATCH = "application/cloudevents-batch+json"

Source = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^\s\x00-\x1f]+$")]
"""Who made an event, a URI reference."""

SequenceNumber = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,17}$")]
"""The number of an event within its epoch: a decimal string from 1, of at most 18 digits."""


class Envelope(BaseModel):
    """What must and may stand around `data` on the wire, in CloudEvents' JSON structured mode.

    Extension attributes that are not named here are accepted and kept; an attribute that is null counts as absent.
    `data` itself is checked against the contract of `type`.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, ser_json_inf_nan="constants")

    specversion: Literal["1.0"] = Field(description="the version of CloudEvents")
    id: Key = Field(description="the event's own key; version 7 recommended")
    source: Source = Field(description="who made it, a URI reference such as /agents/infra-1")
    type: Annotated[str, Field(min_length=1, max_length=255)] = Field(
        description="what it tells; also the AMQP routing key"
    )
    time: Timestamp = Field(description="when the thing that it tells happened")
    datacontenttype: (
        Annotated[str, Field(pattern=r"^application/([A-Za-z0-9.+_-]+\+)?json(\s*;.*)?$")] | None
    ) = Field(None, description="application/json")
    tenantid: Annotated[Tenant, or_default("default")] = Field(
        "default", description="the tenant that it belongs to"
    )
    traceparent: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="W3C trace context"
    )
    tracestate: Annotated[str, Field(max_length=4096)] | None = Field(
        None, description="W3C trace context"
    )
    subject: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="what it is about, in the source's words"
    )
    dataschema: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="a URI of the contract"
    )
    sequence: SequenceNumber | None = Field(
        None, description="its number within the epoch, a decimal string from 1"
    )
    epoch: Key | None = Field(None, description="the run of the source that numbers its events")
    data: dict[str, Any] = Field(description="what the contract of the type says")


class Event(Envelope):
    """One event as an agent builds it: id (UUIDv7) and time (now) are made where they are not given."""

    specversion: Literal["1.0"] = "1.0"
    id: Key = Field(default_factory=uuid7)
    time: Timestamp = Field(default_factory=lambda: datetime.now(UTC))

    def to_json(self) -> bytes:
        """The event's body for the wire: UTF-8 JSON, absent attributes left out."""
        return self.model_dump_json(exclude_none=True).encode()


class EventData(BaseModel):
    """The `data` of one event type: a contract. Unknown members are refused unless a contract says open.

    Class variables: `event_type`, the wire identity (a string, never the class's name); `key_fields`, the members
    that are the idempotency key where the publisher gives them (else the event's id is the key).
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, ser_json_inf_nan="constants"
    )

    event_type: ClassVar[str]
    key_fields: ClassVar[tuple[str, ...]] = ()

    def event(self, *, source: str, tenant: str = "default", **attributes: Any) -> Event:
        """The data in an envelope of its own: a new id (UUIDv7) and the present time unless given."""
        return Event(
            source=source,
            type=self.event_type,
            tenantid=tenant,
            data=self.model_dump(mode="json", exclude_unset=True),
            **attributes,
        )


def batch_to_json(events: Sequence[Event]) -> bytes:
    """Many events as one body in CloudEvents batch mode."""
    return b"[" + b",".join(event.to_json() for event in events) + b"]"


def event_identity(event: Event) -> tuple[str, UUID]:
    """What makes an event unique for CloudEvents: its source and id."""
    return event.source, event.id
