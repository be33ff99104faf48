"""Reads the header table of a message from its bytes, as plain JSON.

The client library copies the rest of the table for every value in it, which makes a hostile table of one frame cost
seconds. This reader goes over the bytes once.
Promises for any bytes: a value within its container, nesting within the limit of the wire, or FieldError.
Layout: AMQP 0-9-1, section 4.2.5, with the types that RabbitMQ uses (its "errata", section 3).
"""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from struct import Struct, error
from typing import Any

from contracts.limits import MAX_NESTING

_SIZE = Struct(">I")
_LATEST_IN_SECONDS = 0xFFFFFFFF  # a larger time stamp was meant in milliseconds


class FieldError(ValueError):
    """These bytes are no header table."""


def read_table(raw: bytes, at: int = 0, depth: int = 0) -> tuple[dict[str, Any], int]:
    """The table that begins here, and where it ends. Raises FieldError."""
    at, end = _bounds(raw, at, depth)
    table: dict[str, Any] = {}
    while at < end:
        key_at = at + 1
        at = key_at + raw[at]
        if at >= end:
            raise FieldError("a key runs past the end of its table")
        try:
            key = raw[key_at:at].decode()
        except UnicodeDecodeError:
            raise FieldError("a key is not UTF-8") from None
        table[key], at = _read_value(raw, at, end, depth)
    return table, at


def _read_array(raw: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    at, end = _bounds(raw, at, depth)
    array: list[Any] = []
    while at < end:
        value, at = _read_value(raw, at, end, depth)
        array.append(value)
    return array, at


def _bounds(raw: bytes, at: int, depth: int) -> tuple[int, int]:
    """Where the content of a container begins and ends."""
    if depth > MAX_NESTING:
        raise FieldError("nested too deeply")
    if at + 4 > len(raw):
        raise FieldError("a table is cut short")
    begin = at + 4
    end = begin + _SIZE.unpack_from(raw, at)[0]
    if end > len(raw):
        raise FieldError("a table is longer than its message's header")
    return begin, end


def _read_value(raw: bytes, at: int, end: int, depth: int) -> tuple[Any, int]:
    """The value whose type stands here, and where it ends, which is within its container."""
    kind, at = raw[at], at + 1
    value: Any
    if kind == _TABLE:
        value, after = read_table(raw, at, depth + 1)
    elif kind == _ARRAY:
        value, after = _read_array(raw, at, depth + 1)
    elif kind in _LONG_STRINGS:
        begin, after = _bounds(raw, at, 0)
        value = _text(raw[begin:after])
    elif kind in _VOID:
        value, after = None, at
    elif kind in _FIXED:
        layout, convert = _FIXED[kind]
        try:
            value = convert(*layout.unpack_from(raw, at))
        except error:
            raise FieldError("a value is cut short") from None
        after = at + layout.size
    else:
        raise FieldError(f"{bytes((kind,))!r} is no type of a value")
    if after > end:
        raise FieldError("a value runs past the end of its table")
    return value, after


def _text(raw: bytes) -> str:
    """Bytes as text, or in hexadecimal digits where they are none."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.hex()


def _time(stamp: int) -> str:
    seconds = stamp if stamp <= _LATEST_IN_SECONDS else stamp / 1000
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        raise FieldError(f"{stamp} is no time") from None


def _number(value: float) -> float | str:
    """JSON has no NaN and no infinity: these as text."""
    return value if math.isfinite(value) else str(value)


def _decimal(scale: int, digits: int) -> str:
    return str(Decimal(digits).scaleb(-scale))


_TABLE, _ARRAY = b"FA"
_LONG_STRINGS = b"Sx"
_VOID = b"V\0"
_FIXED: dict[int, tuple[Struct, Callable[..., Any]]] = {
    ord(kind): (Struct(layout), convert)
    for kind, layout, convert in (
        ("t", ">B", bool),
        ("b", ">b", int),
        ("B", ">B", int),
        ("s", ">h", int),
        ("u", ">H", int),
        ("I", ">i", int),
        ("i", ">I", int),
        ("l", ">q", int),
        ("L", ">q", int),
        ("f", ">f", _number),
        ("d", ">d", _number),
        ("T", ">Q", _time),
        ("D", ">Bi", _decimal),
    )
}
