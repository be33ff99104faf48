"""Reads the envelope of an event: what the worker needs of it, and no more.

Promises what `contracts.envelope.Envelope` says, rule by rule, since its rules are made from that model's own fields;
a model with all its attributes, extensions among them, costs twice as much for each event.
"""

from datetime import datetime
from typing import (
    Annotated,
    Any,
    NotRequired,  # pydantic wants these before Python 3.12
    cast,
)
from uuid import UUID

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from contracts.envelope import Envelope


class Attributes(TypedDict):
    """The attributes of an envelope that passed; those that are null or absent may be either here."""

    id: UUID
    source: str
    type: str
    time: datetime
    tenantid: NotRequired[str]
    sequence: NotRequired[str | None]
    epoch: NotRequired[UUID | None]


def _rules() -> dict[str, Any]:
    rules: dict[str, Any] = {}
    for name, field in Envelope.model_fields.items():
        rule: Any = field.annotation
        for restriction in field.metadata:
            rule = Annotated[rule, restriction]
        rules[name] = rule if field.is_required() else NotRequired[rule]
    del rules["data"]  # an object, looked at below: validating it would copy it
    return rules


_Read = TypedDict("_Read", _rules())  # type: ignore[misc] # its members are known only here
_Read.__pydantic_config__ = ConfigDict(extra="ignore", strict=True)  # type: ignore[attr-defined]
_validate = TypeAdapter(_Read).validator.validate_python
_validate_all = Envelope.__pydantic_validator__.validate_python


def read_envelope(event: dict[str, Any]) -> Attributes:
    """The attributes of this event, whose `data` is an object. Raises pydantic's ValidationError with all that is wrong."""
    if type(event.get("data")) is dict:
        try:
            return cast("Attributes", _validate(event))
        except ValidationError:
            pass  # the model itself says what is wrong
    _validate_all(event)
    raise AssertionError("the envelope's model accepts what its own rules refuse")
