"""The properties of messages as bytes: packs those of a publish, and decodes the content header of a delivery.

Every property that is present is decoded, needed or not: a value that AMQP allows but nobody can read must show here,
as a fault of one message, and never kill the connection. Layout: AMQP 0-9-1 specification, sections 2.3.5 and 4.2.6.
"""

from struct import Struct
from typing import Any

from pamqp import encode as amqp_encode

from worker.broker.field_table import FieldError, read_table
from worker.message import Properties

_PERSISTENT = b"\x02"
_HEAD = Struct(">HHQH")  # class, weight, body size, property flags
_FLAGS_AT = 12
_LATEST_SECONDS = 253402300799  # the end of the year 9999
_SHORT_STRINGS = {
    0x8000: "content_type",
    0x4000: "content_encoding",
    0x0400: "correlation_id",
    0x0200: "reply_to",
    0x0100: "expiration",
    0x0080: "message_id",
    0x0020: "type",
    0x0010: "user_id",
    0x0008: "app_id",
    0x0004: "cluster_id",
}
_ORDER = [1 << bit for bit in range(15, 1, -1)]
_OCTETS = {0x1000: "delivery_mode", 0x0800: "priority"}
_FIELDS = {
    **_SHORT_STRINGS,
    **_OCTETS,
    0x2000: "headers",
    0x0040: "timestamp",
}
_OF_ONE_MESSAGE = 0x0400 | 0x0200 | 0x0100 | 0x0080 | 0x0040
"""Correlation id, reply address, expiration, message id and timestamp: with these, hardly any two messages are alike."""
_SMALL = 64
_MOST_REMEMBERED = 1024  # a bound, so that hostile flags and tables cannot fill memory
_KNOWN: dict[bytes, Properties] = {}
_TABLES: dict[bytes, dict[str, Any]] = {}
_PLANS: dict[int, list[tuple[int, str]]] = {}


def body_size(header: bytes) -> int:
    """The number of body bytes that a content header announces."""
    size: int = _HEAD.unpack_from(header)[2]
    return size


def parse(header: bytes) -> tuple[Properties, str | None]:
    """The properties of a content header, and the fault that stopped their decoding, if any.

    Never raises: what stood before the fault is kept, the rest is None. Messages that carry the same few properties,
    and none that is one message's own, share them: nobody may change them.
    """
    same = header[_FLAGS_AT:]
    known = _KNOWN.get(same)
    if known is not None:
        return known, None
    properties, fault = _parse(header)
    if fault is None and _may_be_shared(same):
        _KNOWN[same] = properties
    return properties, fault


def _may_be_shared(same: bytes) -> bool:
    """Whether flags and properties, as bytes, are short and hold nothing of one message only, and there is room."""
    few = len(same) <= _SMALL and len(_KNOWN) < _MOST_REMEMBERED
    return few and not int.from_bytes(same[:2]) & _OF_ONE_MESSAGE


def _parse(header: bytes) -> tuple[Properties, str | None]:
    properties = Properties()
    name = "property flags"
    try:
        flags = _HEAD.unpack_from(header)[3]
        if flags & 1:
            raise ValueError("more than one word of flags")  # noqa: TRY301 (the one handler is below)
        at = _HEAD.size
        for flag, name in _plan(flags):
            if flag in _SHORT_STRINGS:
                end = at + 1 + header[at]
                setattr(properties, name, header[at + 1 : end].decode())
                at = end
            elif flag in _OCTETS:
                setattr(properties, name, header[at])
                at += 1
            elif name == "timestamp":
                properties.timestamp = _timestamp(header[at : at + 8])
                at += 8
            else:
                properties.headers, at = _headers(header, at)
        if at != len(header):
            raise ValueError("the properties do not end where the header does")  # noqa: TRY301 (as above)
    except Exception as error:  # noqa: BLE001 (foreign bytes: whatever the decoder raises is a fault of this message)
        return properties, f"{name}: {_explain(error)}"
    return properties, None


def pack(
    *,
    content_type: str | None,
    content_encoding: str | None,
    headers: dict[str, str] | None,
    correlation_id: str | None,
    reply_to: str | None,
    message_id: str,
    user_id: str | None = None,
) -> bytes:
    """Flags and properties of a persistent message, for a content header. Raises ValueError for text past 255 bytes."""
    flags = 0
    parts: list[bytes] = []
    for flag, text in ((0x8000, content_type), (0x4000, content_encoding)):
        if text is not None:
            flags |= flag
            parts.append(short_string(text))
    if headers:
        flags |= 0x2000
        parts.append(amqp_encode.field_table(dict(headers)))
    flags |= 0x1000
    parts.append(_PERSISTENT)
    for flag, text in (
        (0x0400, correlation_id),
        (0x0200, reply_to),
        (0x0080, message_id),
        (0x0010, user_id),
    ):
        if text is not None:
            flags |= flag
            parts.append(short_string(text))
    return flags.to_bytes(2) + b"".join(parts)


def short_string(text: str) -> bytes:
    """AMQP's short string: a length byte and UTF-8. Raises ValueError."""
    raw = text.encode()
    if len(raw) > 255:  # noqa: PLR2004 (what a length byte can say)
        raise ValueError(f"{text[:40]!r}… is longer than AMQP's 255 bytes")
    return bytes((len(raw),)) + raw


def _headers(header: bytes, at: int) -> tuple[dict[str, Any], int]:
    """The header table that begins here, and where it ends. Raises FieldError.

    Small tables are remembered, and shared by all who carry them: most messages have the same one (RabbitMQ 3.10 adds
    x-delivery-count to each).
    """
    end = at + 4 + int.from_bytes(header[at : at + 4])
    raw = header[at:end]
    table = _TABLES.get(raw)
    if table is None:
        table, end = read_table(header, at)
        if len(raw) <= _SMALL and len(_TABLES) < _MOST_REMEMBERED:
            _TABLES[raw] = table
    return table, end


def _plan(flags: int) -> list[tuple[int, str]]:
    """The properties that a flag word announces, in their order on the wire (remembered: there are few words)."""
    plan = _PLANS.get(flags)
    if plan is None:
        plan = [(flag, _FIELDS[flag]) for flag in _ORDER if flags & flag]
        if len(_PLANS) < _MOST_REMEMBERED:
            _PLANS[flags] = plan
    return plan


def _timestamp(raw: bytes) -> int:
    seconds = int.from_bytes(raw, signed=False)
    if len(raw) != 8 or seconds > _LATEST_SECONDS:  # noqa: PLR2004 (a timestamp is 64 bits)
        raise ValueError(f"{seconds} s since 1970 is no date")
    return seconds


def _explain(error: Exception) -> str:
    match error:
        case UnicodeDecodeError():
            return "not UTF-8"
        case FieldError():
            return str(error)
        case _:
            return f"{error} ({type(error).__name__})"[:200]
