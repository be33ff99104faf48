"""Bodies as people read them: decompressed, indented, or as a hex dump. Pure; nothing here raises for any bytes."""

import json
import re
from collections.abc import Iterator
from typing import Any

from worker.content_encoding import Undecodable, unpack

_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+', re.DOTALL)
_DEEPEST_INDENT = 40
_DUMP_WIDTH = 16


def unpacked(body: bytes, encoding: str | None, max_bytes: int) -> bytes:
    """The body without its content encoding; as it is where that cannot be undone."""
    try:
        return unpack(body, encoding, max_bytes)
    except Undecodable:
        return body


def as_text(body: bytes | None) -> str | None:
    """The body as text; None where it is none."""
    if body is None:
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def readable(body: bytes) -> str:
    """For a person: JSON indented, other text as it is, everything else as a hex dump."""
    text = as_text(body)
    return "\n".join(hex_dump(body)) if text is None else pretty(text)


def pretty(text: str) -> str:
    """JSON on many lines, every number and string spelt as it was; what is no JSON unchanged."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return "".join(_indented(text))


def _indented(text: str) -> Iterator[str]:
    depth = 0
    last = ""
    for piece in _TOKENS.findall(text):
        if piece in "]}":
            depth -= 1
            if last not in "[{":
                yield _line(depth)
        elif last and last in "[{":
            yield _line(depth)
        yield ": " if piece == ":" else piece
        if piece == ",":
            yield _line(depth)
        elif piece in "[{":
            depth += 1
        last = piece
    yield "\n"


def _line(depth: int) -> str:
    return "\n" + "  " * min(depth, _DEEPEST_INDENT)


def hex_dump(body: bytes, most: int = 64 * 1024) -> Iterator[str]:
    """Lines of an offset, sixteen bytes in hexadecimal, and those that are ASCII."""
    for at in range(0, min(len(body), most), _DUMP_WIDTH):
        piece = body[at : at + _DUMP_WIDTH]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)  # noqa: PLR2004 (printable ASCII)
        yield f"{at:08x}  {piece.hex(' '):<47}  {shown}"
    if len(body) > most:
        yield f"… {len(body) - most} more bytes"


def event_types(body: bytes) -> list[str]:
    """The types of the events in a body, as far as they can be read."""
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        return []
    events = value if isinstance(value, list) else [value]
    return [
        event["type"]
        for event in events
        if isinstance(event, dict) and isinstance(event.get("type"), str)
    ]


def is_batch(body: bytes) -> bool:
    """Whether a body is a JSON array."""
    return body.lstrip(b" \t\r\n").startswith(b"[")
