"""Delivery to messages: encoding, JSON, envelope, contract. Pure: bytes in, Message or Rejected out, never an exception.

One delivery gives one item, or in batch mode one for each event, in order.
"""

import contextlib
from collections.abc import Container
from functools import cache
from hashlib import blake2b
from typing import Annotated, Any
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from contracts.checking import error_details
from contracts.confirmation import Reason
from contracts.envelope import EventData, SequenceNumber, Source
from contracts.fields import Key, Tenant, or_default
from contracts.limits import MAX_BATCH_ERRORS, MAX_BATCH_EVENTS, MAX_BODY_BYTES, MAX_ERRORS
from contracts.registry import ContractFamily
from worker import telemetry
from worker.body import dump, find_unfit, parse, replace_nul
from worker.content_encoding import Undecodable, unpack
from worker.envelope import Attributes, read_envelope
from worker.message import Decoded, Delivery, Message, Number, Rejected

_FEWEST_ERRORS = 3
"""Errors that an event keeps, in however large a batch."""
_LARGE = 2_000
"""Mean bytes of a body's events from which their JSON is kept as text; in facts.py, from which it travels apart."""
_CONTAINERS = frozenset({dict, list})
_NUL = b"\\u0000"
_NOT_EXTENSIONS = frozenset(
    {"specversion", "id", "source", "type", "time", "datacontenttype", "tenantid", "data"}
)


class Decoder:
    """Decodes the deliveries of one family."""

    def __init__(
        self,
        family: ContractFamily,
        max_body_bytes: int = MAX_BODY_BYTES,
        *,
        facts: Container[str] = (),
    ) -> None:
        """`facts`: the types whose events become rows as they are, so that nobody looks into their JSON again."""
        self._name = family.name
        self._facts = facts
        # pydantic-core's own validators: the model's method around them costs a fifth of the check.
        self._contracts = {
            name: (contract, contract.__pydantic_validator__.validate_python)
            for name, contract in family.types.items()
        }
        self._max_body_bytes = max_body_bytes

    def decode(self, delivery: Delivery) -> list[Decoded]:
        """What one delivery holds."""
        if delivery.fault:
            return [reject(delivery, "undecodable", [("", f"AMQP property {delivery.fault}")])]
        try:
            text = unpack(delivery.body, delivery.properties.content_encoding, self._max_body_bytes)
            delivery.unpacked = len(text)
            value, exact = parse(text)
        except Undecodable as error:
            return [reject(delivery, "undecodable", [("", str(error))])]
        holds_nul = b"\\" in text and _NUL in text
        if not isinstance(value, list):
            return [self._event(delivery, None, value, exact=exact, holds_nul=holds_nul)]
        if not 1 <= len(value) <= MAX_BATCH_EVENTS:
            text_ = f"a batch must hold 1 to {MAX_BATCH_EVENTS} events, this one holds {len(value)}"
            return [reject(delivery, "undecodable", [("", text_)])]
        delivery.events = len(value)
        return [
            self._event(delivery, index, event, exact=exact, holds_nul=holds_nul)
            for index, event in enumerate(value)
        ]

    def _event(
        self, delivery: Delivery, index: int | None, raw: Any, *, exact: bool, holds_nul: bool
    ) -> Decoded:
        if unfit := find_unfit(raw) if exact else None:
            return _reject_event(delivery, index, raw, "undecodable", [("", unfit.why)])
        if not isinstance(raw, dict):
            return _reject_event(
                delivery, index, raw, "invalid", [("", "an event must be an object")]
            )
        try:
            return self._message(delivery, index, raw, holds_nul=holds_nul)
        except ValidationError as error:
            return _reject_event(delivery, index, raw, "invalid", error)

    def _message(
        self, delivery: Delivery, index: int | None, raw: dict[str, Any], *, holds_nul: bool
    ) -> Decoded:
        digest_of = raw
        if holds_nul:
            raw, replaced = replace_nul(raw)
            telemetry.nul_characters_replaced.labels(self._name).inc(replaced)
        envelope = read_envelope(raw)
        event_type = envelope["type"]
        contract = self._contracts.get(event_type)
        if contract is None:
            why = f"{event_type!r} is not a type of the family {self._name!r}"
            return _reject_event(delivery, index, digest_of, "unknown_type", [("type", why)])
        data: dict[str, Any] = raw["data"]
        event_data, validate = contract
        try:
            fields: EventData = validate(data)
        except ValidationError as error:
            return _reject_event(delivery, index, digest_of, "invalid", error, prefix=("data",))
        tenant = envelope.get("tenantid", "default")
        number = _number(tenant, envelope) if "sequence" in envelope else None
        if delivery.unpacked > _LARGE * delivery.events and event_type in self._facts:
            _keep_as_text(data, fields)
        return Message(  # by position, in the order of its fields: names would cost as much as the digest
            delivery,
            index,
            event_type,
            envelope["id"],
            tenant,
            envelope["source"],
            envelope["time"],
            _key(event_data.key_fields, fields, envelope["id"]),
            data,
            fields,
            digest(event_type, tenant, digest_of["data"]),
            _extensions(raw),
            number,
        )


def digest(event_type: str, tenant: str, data: dict[str, Any]) -> bytes:
    """16 bytes that two messages share if, and only if, they say the same: over type, tenant and data as received."""
    content = orjson.dumps([event_type, tenant, data], option=orjson.OPT_SORT_KEYS)
    return blake2b(content, digest_size=16).digest()


def _keep_as_text(data: dict[str, Any], fields: EventData) -> None:
    """Write arrays and objects as JSON at once, and forget their values.

    Hundreds of values for each of hundreds of events, kept until the batch is written, fit no cache of the processor.
    With their keys in order, as the digest wants them: it takes this text as it is.
    """
    members = vars(fields)
    for name, value in data.items():
        if type(value) in _CONTAINERS and not isinstance(members.get(name), BaseModel):
            data[name] = orjson.Fragment(orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
            if name in members:
                members[name] = data[name]


def _key(names: tuple[str, ...], fields: EventData, event_id: UUID) -> tuple[UUID, ...]:
    """The members that the contract names as key, if all are given; else the event's id."""
    members = vars(fields)
    values = []
    for name in names:
        value = members[name]
        if value is None:  # not `in`: that would ask each UUID, in Python, whether it equals None
            return (event_id,)
        values.append(value)
    return tuple(values) or (event_id,)


def _number(tenant: str, envelope: Attributes) -> Number | None:
    sequence, epoch = envelope.get("sequence"), envelope.get("epoch")
    if sequence is None or epoch is None:
        return None
    return Number(tenant, envelope["source"], epoch, int(sequence))


def _extensions(raw: dict[str, Any]) -> dict[str, Any] | None:
    """Every attribute that has no column of its own."""
    if _NOT_EXTENSIONS.issuperset(raw):
        return None
    extensions = {
        name: value
        for name, value in raw.items()
        if name not in _NOT_EXTENSIONS and value is not None
    }
    return extensions or None


def reject(
    delivery: Delivery, reason: Reason, errors: list[tuple[str, str]], **identity: Any
) -> Rejected:
    """A rejection of a whole delivery; `errors` are pairs of a place ("" = the whole) and a sentence."""
    details = [
        {"loc": [place] if place else [], "msg": text, "type": reason} for place, text in errors
    ]
    return Rejected(delivery, None, reason, details, delivery.body, **identity)


def _reject_event(
    delivery: Delivery,
    index: int | None,
    raw: Any,
    reason: Reason,
    errors: list[tuple[str, str]] | ValidationError,
    prefix: tuple[str, ...] = (),
) -> Rejected:
    """A rejection of one event, with as much of its identity as can be read."""
    if isinstance(errors, ValidationError):
        most = max(_FEWEST_ERRORS, MAX_BATCH_ERRORS // delivery.events)
        kept = error_details(errors, prefix, most=min(most, MAX_ERRORS))
        details = [detail.model_dump(mode="json") for detail in kept]
    else:
        details = [
            {"loc": [place] if place else [], "msg": msg, "type": reason} for place, msg in errors
        ]
    rejected = Rejected(
        delivery, index, reason, details, delivery.body if index is None else dump(raw)
    )
    identify(rejected, raw)
    return rejected


def identify(rejected: Rejected, raw: Any) -> None:
    """Read as much of an event's identity as there is: for people, the publisher who waits, and the loss ledger."""
    rejected.numbers = numbers_of(raw)
    if isinstance(raw, dict):
        rejected.id = rejected.key = _string(raw.get("id"))
        rejected.type = _string(raw.get("type"))
        rejected.source = _string(raw.get("source"))
        rejected.tenant = _tenant(raw.get("tenantid", "default"))


def numbers_of(raw: Any) -> list[Number]:
    """The numbers of an event, or of each event of a batch, that can be read; whatever else is wrong with it."""
    events = raw[:MAX_BATCH_EVENTS] if isinstance(raw, list) else [raw]
    found = []
    for event in events:
        if isinstance(event, dict) and "sequence" in event and "epoch" in event:
            with contextlib.suppress(ValidationError):
                read = _Numbered.model_validate(event)
                found.append(Number(read.tenantid, read.source, read.epoch, int(read.sequence)))
    return found


class _Numbered(BaseModel):
    """What of an envelope says which number it has."""

    model_config = ConfigDict(strict=True)

    tenantid: Annotated[Tenant, or_default("default")] = "default"
    source: Source
    epoch: Key
    sequence: SequenceNumber


def _string(value: Any) -> str | None:
    return value[:1024].replace("\0", "\u2400") if isinstance(value, str) else None


@cache
def _tenants() -> TypeAdapter[str]:
    return TypeAdapter(Tenant)


def _tenant(value: Any) -> str | None:
    try:
        return _tenants().validate_python(value, strict=True)
    except ValidationError:
        return None
