"""Checks an event where it is made, by the rules that the worker will apply: `contracts.check(event)`.

Owns how a contract's errors are told: as ErrorDetail, each with the way to the member from the top of the event.
Promises that an event which passes is neither `undecodable` nor `invalid` nor of an `unknown_type` for a worker
with the same contracts and the usual body limit.
"""

import difflib
import json
import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from contracts.confirmation import ErrorDetail
from contracts.envelope import Envelope, Event
from contracts.limits import (
    INT64_MIN,
    MAX_BODY_BYTES,
    MAX_ERRORS,
    MAX_ERRORS_BYTES,
    MAX_JSON_VALUES,
    MAX_NESTING,
    UINT64_MAX,
)
from contracts.registry import contract_types

# Only a body that holds one of these, each digit read as 0, can hold a number or an escape that the wire does not allow.
_SUSPICIOUS = (
    b"0" * 19,
    b"e000",
    b"E000",
    b"e+000",
    b"E+000",
    b"NaN",
    b"Infinity",
    b"\\ud",
    b"\\uD",
)
_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)

_FEW_ERRORS = 1000
_BEGIN_OF_MANY = 256 * 1024  # characters of JSON that hold the first hundred errors
_MAX_PART = 200  # characters of a member's name, which is the publisher's and may be of any length


def check(event: Event | Mapping[str, Any]) -> list[ErrorDetail]:
    """Everything that is wrong with an event, envelope and `data`; empty where it is right."""
    try:
        if isinstance(event, Event):
            body = event.to_json()
        else:
            body = json.dumps(dict(event), ensure_ascii=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        return [_error("json_unwritable", f"the event cannot be written as JSON: {error}")]
    return check_body(body)


def check_body(body: bytes) -> list[ErrorDetail]:
    """Everything that is wrong with one event as it goes over the wire, uncompressed."""
    if len(body) > MAX_BODY_BYTES:
        return [_error("too_large", f"an event must be at most {MAX_BODY_BYTES} bytes of JSON")]
    try:
        raw = json.loads(
            body.decode()
        )  # UTF-8 only; NaN passes here, and is found below with its place
    except (ValueError, RecursionError) as error:
        return [_error("json_invalid", f"the event is not JSON: {error}")]
    if not isinstance(raw, dict):
        return [_error("json_type", "an event must be a JSON object")]
    return _misfits(raw, body) or _contract_errors(raw)


def error_details(
    error: ValidationError, prefix: tuple[str | int, ...] = (), *, most: int = MAX_ERRORS
) -> list[ErrorDetail]:
    """A contract's errors below `prefix`: at most so many of them and 16 KiB, then how many there were.

    They never hold the values of the event.
    """
    details: list[ErrorDetail] = []
    room = MAX_ERRORS_BYTES
    for item in _first_errors(error, most):
        loc = tuple(_part(part) for part in (*prefix, *item["loc"]))
        detail = ErrorDetail(loc=loc, msg=item["msg"][:500], type=item["type"])
        room -= len(detail.model_dump_json().encode())
        if room < 0:
            break
        details.append(detail)
    count = error.error_count()
    if len(details) < count:
        kept = f"{count} errors in all, {len(details)} of them kept"
        details.append(_error("more_errors", kept))
    return details


def _first_errors(error: ValidationError, most: int) -> list[dict[str, Any]]:
    """The first errors; of very many only these become objects, for half a million would take a quarter of a gigabyte."""
    if error.error_count() <= _FEW_ERRORS:
        few = error.errors(include_url=False, include_context=False, include_input=False)
        return [dict(item) for item in few[:most]]
    text = error.json(include_url=False, include_context=False, include_input=False)
    begin = text[:_BEGIN_OF_MANY].encode(errors="replace")
    items: list[dict[str, Any]] = from_json(begin, allow_partial=True)
    return [item for item in items[:most] if item.keys() >= {"loc", "msg", "type"}]


def _part(part: str | int) -> str | int:
    """A step of the way; names of members are the publisher's, of any length and with any character."""
    return part if isinstance(part, int) else part[:_MAX_PART].replace("\0", "\u2400")


def _contract_errors(raw: dict[str, Any]) -> list[ErrorDetail]:
    """What the envelope's rules and the contract of its type say."""
    try:
        envelope = Envelope.model_validate(raw)
    except ValidationError as error:
        return error_details(error)
    found = contract_types().get(envelope.type)
    if found is None:
        return [_unknown_type(envelope.type)]
    try:
        found[1].model_validate(envelope.data)
    except ValidationError as error:
        return error_details(error, ("data",))
    return []


def _unknown_type(name: str) -> ErrorDetail:
    similar = difflib.get_close_matches(name, contract_types(), n=1)
    hint = f"did you mean {similar[0]!r}?" if similar else "see docs/contracts.md for all types"
    return _error("unknown_type", f"{name[:_MAX_PART]!r} is not a known type; {hint}", "type")


def _misfits(raw: dict[str, Any], body: bytes) -> list[ErrorDetail]:
    """What JSON allows and the wire does not: deep nesting, numbers out of range, very many values."""
    if _may_misfit(body) and not _fits(raw, MAX_NESTING):
        return [_find_misfit(raw, (), MAX_NESTING)]
    # A value and its separator take two bytes, so a small body need not be counted.
    if len(body) > 2 * MAX_JSON_VALUES and _count(raw) > MAX_JSON_VALUES:
        text = f"an event must hold at most {MAX_JSON_VALUES} JSON values"
        return [_error("too_many_values", text)]
    return []


def _may_misfit(body: bytes) -> bool:
    """A quick look that spares nearly every event the slow one."""
    digits = body.translate(_ZEROS)
    deep = body.count(b"{") + body.count(b"[") > MAX_NESTING
    return deep or any(sign in digits for sign in _SUSPICIOUS)


def _fits(value: Any, depth: int) -> bool:
    """Whether every number and text is in range and nothing is nested deeper than `depth` more levels."""
    if isinstance(value, str):
        return _is_text(value)
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, int):
        return INT64_MIN <= value <= UINT64_MAX
    if isinstance(value, float):
        return math.isfinite(value)
    members = value
    if isinstance(value, dict):
        members = value.values()
        if not all(map(_is_text, value)):
            return False
    return depth > 0 and all(_fits(member, depth - 1) for member in members)


def _is_text(value: str) -> bool:
    """Whether these characters can be written as UTF-8: half of a surrogate pair cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _find_misfit(value: Any, loc: tuple[str | int, ...], depth: int) -> ErrorDetail:
    """The first thing that does not fit, with the way to it."""
    if isinstance(value, str):
        return _error("lone_surrogate", "a text must not hold half of a surrogate pair", *loc)
    if isinstance(value, int):
        return _error("int_64_bits", "an integer must fit in 64 bits", *loc)
    if isinstance(value, float):
        return _error("finite_number", "a number must be finite as an IEEE double", *loc)
    if depth == 0:
        return _error("too_deep", f"nesting must be at most {MAX_NESTING} deep", *loc[:8])
    if isinstance(value, dict) and not all(map(_is_text, value)):
        return _error("lone_surrogate", "a name must not hold half of a surrogate pair", *loc)
    members = value.items() if isinstance(value, dict) else enumerate(value)
    name, member = next(entry for entry in members if not _fits(entry[1], depth - 1))
    return _find_misfit(member, (*loc, name), depth - 1)


def _count(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_count, value.values()))
    if isinstance(value, list):
        return 1 + sum(map(_count, value))
    return 1


def _error(kind: str, msg: str, *loc: str | int) -> ErrorDetail:
    short = tuple(part[:_MAX_PART] if isinstance(part, str) else part for part in loc)
    return ErrorDetail(loc=short, msg=msg, type=kind)
