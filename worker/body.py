"""From the text of a body to JSON values, within the limits of the wire.

Promises bounded time and memory for any bytes, and one error, Undecodable, for all that
is not JSON in UTF-8. A number that the wire does not allow, or a lone surrogate, inside otherwise well-formed JSON
becomes an Unfit value, so that in a batch only the event that holds it is rejected.
"""

import json
import re
from typing import Any, Final

import orjson

from contracts.limits import MAX_JSON_VALUES, MAX_NESTING
from worker.content_encoding import Undecodable

# A string that is not closed reaches to the end: were it no match, the search would begin anew at each quote inside it.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
_STRINGS = re.compile(_STRING, re.DOTALL)
_MANY_STRINGS = re.compile(rb'(?:[^"]*+' + _STRING + rb"){1,10000}+", re.DOTALL)
_EMPTY = re.compile(rb"\[\s*+\]|\{\s*+\}")
_ALIKE = bytes.maketrans(b"123456789{", b"0" * 9 + b"[")
"""Every digit as 0 and every opening bracket as [, so that one pass serves two looks."""
_LONG_NUMBER = b"0" * 19  # the fewest digits of an integer that 64 bits may not hold
_UINT64_MAX: Final = 2**64 - 1
_INT64_MIN: Final = -(2**63)
_CONTAINERS = (dict, list)


class Unfit:
    """Stands where a JSON value was that no row can hold; `why` says which."""

    __slots__ = ("spelling", "why")

    def __init__(self, why: str, spelling: str) -> None:
        self.why = why
        self.spelling = spelling


def parse(text: bytes) -> tuple[Any, bool]:
    """The JSON value of a body, and whether the slow parser read it, so that it may hold Unfit values. Raises Undecodable."""
    if not text:
        raise Undecodable("the body is empty")
    if len(text) > MAX_JSON_VALUES:  # each value takes a byte at least
        _check_value_count(text)
    exact, opening = _look(text)
    if not exact:
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            _check_cause(str(error))
            exact = True
    if exact:
        value = _parse_exact(text)
    if opening > MAX_NESTING:
        limit = MAX_NESTING + isinstance(value, list)  # the array around a batch is not counted
        if _deeper_than(value, limit, opening):
            raise Undecodable(f"the body is nested more than {MAX_NESTING} deep")
    return value, exact


def _look(text: bytes) -> tuple[bool, int]:
    """Whether an integer may be out of range, and how many brackets open."""
    alike = text.translate(_ALIKE)
    return _LONG_NUMBER in alike, alike.count(b"[")


def _check_value_count(text: bytes) -> None:
    """Refuse what would become too many objects in memory, before a parser sees it."""
    if _most_values(text) <= MAX_JSON_VALUES:
        return
    bare = _without_strings(text)
    if _most_values(bare) - sum(1 for _ in _EMPTY.finditer(bare)) > MAX_JSON_VALUES:
        raise Undecodable(f"the body holds more than {MAX_JSON_VALUES} JSON values")


def _without_strings(text: bytes) -> bytes:
    """The text with every string empty; a stretch at a time, since replacing millions at once takes half a gigabyte."""
    parts = []
    end = 0
    while stretch := _MANY_STRINGS.match(
        text, end
    ):  # not a search: that would begin anew at every byte
        parts.append(_STRINGS.sub(b'""', stretch[0]))
        end = stretch.end()
    return b"".join([*parts, text[end:]])


def _most_values(text: bytes) -> int:
    """A value stands first in the text, or follows a comma, a colon after a member's name, or an opening bracket."""
    return text.count(b",") + text.count(b"[") + text.count(b"{") + 1


def _check_cause(message: str) -> None:
    """Raise Undecodable, unless what orjson refused may be JSON with a number or an escape that is out of range."""
    if "infinity" not in message and "surrogate" not in message:
        raise Undecodable(f"the body is not JSON: {message}")


def _parse_exact(text: bytes) -> Any:
    """The slow way, for bodies with a number or an escape that may be out of range: keeps every spelling."""
    if _nesting(text) > MAX_NESTING + 1:
        raise Undecodable(f"the body is nested more than {MAX_NESTING} deep")
    try:
        value = json.loads(
            text.decode(), parse_int=_integer, parse_float=_real, parse_constant=_constant
        )
    except ValueError as error:
        raise Undecodable(f"the body is not JSON: {error}") from None
    return _mark_surrogates(value) if b"\\u" in text else value


def _nesting(text: bytes) -> int:
    """How deep brackets stand in one another outside strings."""
    depth = deepest = 0
    for byte in _without_strings(text).translate(None, delete=_NO_BRACKETS):
        depth += 1 if byte in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def _integer(spelling: str) -> Any:
    if len(spelling) > 20 or not _INT64_MIN <= int(spelling) <= _UINT64_MAX:  # noqa: PLR2004 (digits and sign of 64 bits)
        return Unfit("an integer must fit in 64 bits", spelling)
    return int(spelling)


def _real(spelling: str) -> Any:
    value = float(spelling)
    if value in (float("inf"), float("-inf")):
        return Unfit("a number must be finite as an IEEE double", spelling)
    return value


def _constant(spelling: str) -> Any:
    raise ValueError(f"{spelling} is not JSON")


def _mark_surrogates(value: Any) -> Any:
    match value:
        case str():
            return value if _encodes(value) else Unfit("a string has a lone surrogate", value)
        case list():
            return [_mark_surrogates(item) for item in value]
        case dict():
            if not all(map(_encodes, value)):
                return Unfit("a member's name has a lone surrogate", "")
            return {key: _mark_surrogates(item) for key, item in value.items()}
        case _:
            return value


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _deeper_than(value: Any, limit: int, opening: int) -> bool:
    """Whether containers stand more than `limit` deep; there are at most as many as brackets open in the text.

    It looks level by level, and no further once too few are left to reach that depth: nearly always after a few.
    """
    level = [value] if isinstance(value, _CONTAINERS) else []
    depth = 1
    while level and depth + opening - len(level) > limit:
        opening -= len(level)
        level = [
            child
            for container in level
            for child in (container.values() if type(container) is dict else container)
            if type(child) is dict or type(child) is list
        ]
        depth += 1
        if depth > limit and level:
            return True
    return False


def find_unfit(value: Any) -> Unfit | None:
    """The first value out of range inside a JSON value, if there is one."""
    match value:
        case Unfit():
            return value
        case dict():
            return next(filter(None, map(find_unfit, value.values())), None)
        case list():
            return next(filter(None, map(find_unfit, value)), None)
        case _:
            return None


def dump(value: Any) -> bytes:
    """A parsed JSON value as bytes again, numbers that were out of range with their spelling."""
    if find_unfit(value) is None:
        return orjson.dumps(value)
    return _spell(value).encode(errors="surrogatepass")


def _spell(value: Any) -> str:
    match value:
        case Unfit():
            return (
                value.spelling
                if "number" in value.why or "integer" in value.why
                else json.dumps(value.spelling)
            )
        case dict():
            return "{" + ",".join(f"{json.dumps(k)}:{_spell(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ",".join(map(_spell, value)) + "]"
        case _:
            return json.dumps(value)


def replace_nul(value: Any) -> tuple[Any, int]:
    """The value with every NUL character as U+2400 (PostgreSQL has no NUL), and how many there were."""
    match value:
        case str():
            count = value.count("\0")
            return (value.replace("\0", "\u2400"), count) if count else (value, 0)
        case list():
            pairs = [replace_nul(item) for item in value]
            return [item for item, _ in pairs], sum(count for _, count in pairs)
        case dict():
            entries = [(replace_nul(key), replace_nul(item)) for key, item in value.items()]
            replaced = {key: item for (key, _), (item, _) in entries}
            return replaced, sum(kc + ic for (_, kc), (_, ic) in entries)
        case _:
            return value, 0
