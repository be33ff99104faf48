"""A dead letter as an operator meets it: one line in a list, or the whole row.

Owns the form of a letter in JSON, which is what `show --json` prints and what export files hold.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from contracts.confirmation import Reason
from contracts.limits import MAX_SEQUENCE
from worker.dead_letters import bodies

State = Literal["open", "replayed", "edited", "discarded"]
"""Open until its message is stored (replayed, edited) or somebody discards it."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A letter without its body."""

    id: UUID
    first_seen_at: datetime
    last_seen_at: datetime
    family: str
    type: str | None
    reason: str
    error: str
    error_count: int
    source: str | None
    tenant_id: str | None
    exchange: str
    routing_key: str
    bytes: int
    edited: bool
    seen: int
    replays: int
    state: State


_Sequence = Annotated[int, Field(ge=1, le=MAX_SEQUENCE)]


def _from_base64(value: Any) -> Any:
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


class LetterSequences(BaseModel):
    """Numbers of one tenant, source and epoch that a letter holds, as pairs of the first and the last of a range."""

    model_config = ConfigDict(frozen=True)

    tenant_id: str
    source: str
    epoch: UUID
    ranges: list[tuple[_Sequence, _Sequence]]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if any(first > last for first, last in self.ranges):
            raise ValueError("a range must not end before it begins")
        return self


Base64 = Annotated[bytes, BeforeValidator(_from_base64)]


class Letter(BaseModel):
    """One row of `dead_letters`, every column by its name."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: UUID
    tenant_id: str | None = None
    exchange: str
    routing_key: str
    message_id: str | None = None
    batch_index: int | None = Field(None, ge=0)
    family: str
    type: str | None = Field(None, max_length=255)
    source: str | None = Field(None, max_length=255)
    reason: Reason
    errors: list[dict[str, Any]] = Field(default_factory=list)
    headers: dict[str, Any] = Field(default_factory=dict)
    properties: dict[str, Any] = Field(default_factory=dict)
    properties_raw: Base64 | None = None
    body: Base64
    edited_body: Base64 | None = None
    seen: int = Field(1, ge=1)
    first_seen_at: AwareDatetime
    last_seen_at: AwareDatetime
    replays: int = Field(0, ge=0)
    last_replayed_at: AwareDatetime | None = None
    resolved_at: AwareDatetime | None = None
    resolution: Literal["replayed", "edited", "discarded"] | None = None
    sequences: list[LetterSequences] | None = None
    """Its numbers for the loss ledger."""

    @property
    def state(self) -> State:
        """Open, or how it ended."""
        return self.resolution or "open"

    @property
    def content_type(self) -> str | None:
        """The AMQP content type that it came with."""
        return _text(self.properties.get("content_type"))

    @property
    def content_encoding(self) -> str | None:
        """The AMQP content encoding that its original body is in."""
        return _text(self.properties.get("content_encoding"))

    def text(self, max_bytes: int) -> bytes:
        """The original body without its encoding; as it came where that cannot be undone."""
        return bodies.unpacked(self.body, self.content_encoding, max_bytes)

    def as_json(self, max_bytes: int) -> dict[str, Any]:
        """The whole row for JSON: bytes as base64, and beside them the bodies as text where they are text."""
        row = self.model_dump(mode="json", exclude={"body", "edited_body", "properties_raw"})
        for name in ("properties_raw", "body", "edited_body"):
            value = getattr(self, name)
            row[name] = None if value is None else base64.b64encode(value).decode()
        row["body_text"] = bodies.as_text(self.text(max_bytes))
        row["edited_body_text"] = bodies.as_text(self.edited_body)
        return row


COLUMNS = tuple(Letter.model_fields)
"""Every column of the table, in its order."""

JSON_COLUMNS = ("errors", "headers", "properties", "sequences")
"""Those that travel to and from the driver as JSON text."""


def from_row(row: Mapping[str, Any]) -> Letter:
    """A letter from a row whose JSON columns are text."""
    values = dict(row)
    for name in JSON_COLUMNS:
        values[name] = json.loads(values[name] or "null")
    if values["sequences"] is not None:
        values["sequences"] = [LetterSequences(**entry) for entry in values["sequences"]]
    return Letter.model_construct(**values)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
