"""Lines of a file as they can be published.

Promises that whatever a worker can judge gets to it, also what it will reject: only a line without a type that can be a
routing key has nowhere to go.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeGuard

import orjson

from contracts.limits import MAX_NESTING

_READ_BYTES = 256 * 1024
_LONGEST_TYPE = 255
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}:]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Line:
    """One line that can be published. `groupable`: it can share a body without harm to its neighbours."""

    number: int
    body: bytes
    type: str
    events: int = 1
    batch: bool = False
    groupable: bool = True
    id: str | None = None


def read_line(number: int, raw: bytes) -> Line:
    """A line as it can be published. Raises ValueError where nobody can say where to."""
    groupable = raw.count(b"[") + raw.count(b"{") <= MAX_NESTING
    try:
        value: Any = orjson.loads(raw)
    except orjson.JSONDecodeError:
        groupable = False
        value = _parse_leniently(raw)
    events = value if isinstance(value, list) and value else [value]
    first = events[0]
    name = first.get("type") if isinstance(first, dict) else None
    if not _is_routing_key(name):
        raise ValueError("no event: it has no type that can be a routing key")
    if isinstance(value, list):
        return Line(number, raw, name, events=len(value), batch=True, groupable=False)
    event_id = first.get("id")
    return Line(
        number, raw, name, groupable=groupable, id=event_id if isinstance(event_id, str) else None
    )


def _is_routing_key(name: Any) -> TypeGuard[str]:
    """Whether this is text that AMQP has room for."""
    try:
        return isinstance(name, str) and len(name.encode()) <= _LONGEST_TYPE
    except UnicodeEncodeError:
        return False


def _parse_leniently(raw: bytes) -> Any:
    """What a worker will call undecodable, but can still be routed: NaN, 1e400, lone surrogates, any depth."""
    try:
        return json.loads(
            raw, parse_int=len, parse_float=len
        )  # of any length: nobody needs the value
    except RecursionError:
        return {"type": _shallow_type(raw.decode())}
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None


def _shallow_type(text: str) -> str | None:
    """The member `type` of an object that is nested too deeply to be parsed."""
    depth = 0
    previous = ["", ""]
    for piece in _TOKENS.findall(text):
        if depth == 1 and previous == ['"type"', ":"] and piece.startswith('"'):
            return str(json.loads(piece))
        depth += (piece in "[{") - (piece in "]}")
        previous = [previous[1], piece]
    return None


async def lines_of(file: BinaryIO) -> AsyncIterator[tuple[int, bytes]]:
    """The lines of a file with their numbers, without blank ones; read aside, so that answers are heard meanwhile."""
    number = 0
    rest = b""
    while True:
        piece = await asyncio.to_thread(_read, file)
        pieces = (rest + piece).split(b"\n")
        rest = pieces.pop()
        if not piece:
            pieces.append(rest)
        for line in pieces:
            number += 1
            stripped = line.strip()
            if number == 1:
                stripped = stripped.removeprefix(b"\xef\xbb\xbf")
            if stripped:
                yield number, stripped
        if not piece:
            return


def _read(file: BinaryIO) -> bytes:
    """What is there: a pipe gives what it has."""
    read1 = getattr(file, "read1", None)
    piece: bytes = read1(_READ_BYTES) if read1 else file.read(_READ_BYTES)
    return piece
