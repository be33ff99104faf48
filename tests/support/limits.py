"""Bodies at and past every limit of the wire, bombs, and hostile header tables, made when they are needed.

Each case: the body, its content encoding, and what becomes of it ("message", or the reason of its rejection).
"""

import gzip
import json
import re
import struct
from collections.abc import Callable

import zstandard

from contracts.limits import MAX_BATCH_EVENTS, MAX_BODY_BYTES, MAX_JSON_VALUES, MAX_NESTING
from support.events import logged

Case = tuple[bytes, str | None, str]


def event(**data: object) -> bytes:
    """An event that is right, with open JSON in `output_full`."""
    made = json.loads(logged().to_json())
    made["data"].update(data)
    return json.dumps(made, separators=(",", ":")).encode()


def spliced(text: bytes) -> bytes:
    """An event whose open JSON is these bytes, whatever they are."""
    return event(output_full="@@").replace(b'"@@"', text)


def sized(size: int) -> bytes:
    """An event of exactly so many bytes."""
    return spliced(b'"' + b"x" * (size - len(spliced(b'""'))) + b'"')


def valued(count: int) -> bytes:
    """An event of exactly so many JSON values."""
    around = (
        len(re.findall(rb'":', event())) + 2
    )  # the members, the event itself and the array below
    return spliced(b"[" + b",".join([b"[]"] * (count - around)) + b"]")


def nested(depth: int) -> bytes:
    """An event that is nested so deep; the event and its data are two of the levels."""
    return spliced(b"[" * (depth - 2) + b"]" * (depth - 2))


def batch(count: int) -> bytes:
    return b"[" + b",".join([event()] * count) + b"]"


def members(count: int) -> bytes:
    """One event cut into so many gzip members, most of them empty."""
    text = event()
    return gzip.compress(text[:50]) + gzip.compress(b"") * (count - 2) + gzip.compress(text[50:])


def zstd_frames(count: int) -> bytes:
    text = event()
    one, other = zstandard.compress(text[:50]), zstandard.compress(text[50:])
    return one + zstandard.compress(b"") * (count - 2) + other


def skippable(count: int) -> bytes:
    return struct.pack("<II", 0x184D2A53, 0) * count + zstandard.compress(event())


def nested_compression(times: int) -> bytes:
    """Compressed again and again: what comes out is no JSON, and is not unpacked a second time."""
    body = event()
    for _ in range(times):
        body = gzip.compress(body)
    return body


def long_window() -> bytes:
    """A frame of a few bytes that asks for a window of 2 GiB."""
    return struct.pack("<IBB", 0xFD2FB528, 0, 21 << 3) + b"\x01\x00\x00"


def run_length_bomb() -> bytes:
    """Blocks of four bytes that each become 128 KiB."""
    blocks = b"".join(struct.pack("<I", (128 * 1024) << 3 | 1 << 1)[:3] + b"x" for _ in range(5000))
    return struct.pack("<IBB", 0xFD2FB528, 0, 10 << 3) + blocks + b"\x01\x00\x00"


CASES: dict[str, Callable[[], Case]] = {
    "a body at the limit": lambda: (sized(MAX_BODY_BYTES), None, "message"),
    "a body of one byte more": lambda: (sized(MAX_BODY_BYTES + 1), None, "undecodable"),
    "a gzip body at the limit": lambda: (
        gzip.compress(sized(MAX_BODY_BYTES), 1),
        "gzip",
        "message",
    ),
    "a gzip body of one byte more": lambda: (
        gzip.compress(sized(MAX_BODY_BYTES + 1), 1),
        "gzip",
        "undecodable",
    ),
    "a zstd body at the limit": lambda: (
        zstandard.compress(sized(MAX_BODY_BYTES)),
        "zstd",
        "message",
    ),
    "a zstd body of one byte more": lambda: (
        zstandard.compress(sized(MAX_BODY_BYTES + 1)),
        "zstd",
        "undecodable",
    ),
    "nesting at the limit": lambda: (nested(MAX_NESTING), None, "message"),
    "nesting of one level more": lambda: (nested(MAX_NESTING + 1), None, "undecodable"),
    "ten thousand levels": lambda: (nested(10_000), None, "undecodable"),
    "ten thousand levels that are not closed": lambda: (b'{"a":' * 10_000, None, "undecodable"),
    "ten thousand levels behind a long number": lambda: (
        spliced(b"[11111111111111111111," + b"[" * 10_000 + b"]" * 10_000 + b"]"),
        None,
        "undecodable",
    ),
    "values at the limit": lambda: (valued(MAX_JSON_VALUES), None, "message"),
    "one value more": lambda: (valued(MAX_JSON_VALUES + 1), None, "undecodable"),
    "eight megabytes of empty arrays": lambda: (
        b"[" + b"[]," * 2_790_000 + b"[]]",
        None,
        "undecodable",
    ),
    "eight megabytes of empty strings": lambda: (
        b"[" + b'"",' * 2_790_000 + b'""]',
        None,
        "undecodable",
    ),
    "eight megabytes of open brackets": lambda: (b"[" * 8_000_000, None, "undecodable"),
    "eight megabytes of blanks": lambda: (b" " * 8_000_000, None, "undecodable"),
    "a string that is never closed": lambda: (
        b"," * 600_000 + b'"' + b'\\"' * 3_000_000,
        None,
        "undecodable",
    ),
    "a string that is never closed behind a long number": lambda: (
        b"1" * 20 + b'"' + b'\\"' * 3_000_000,
        None,
        "undecodable",
    ),
    "a long number of eight million digits": lambda: (
        spliced(b"9" * 8_000_000),
        None,
        "undecodable",
    ),
    "a fraction of eight million digits": lambda: (
        spliced(b"0." + b"9" * 8_000_000),
        None,
        "message",
    ),
    "half a million numbers of nineteen digits": lambda: (
        spliced(b"[" + b",".join([b"1111111111111111111"] * 380_000) + b"]"),
        None,
        "message",
    ),
    "half a million members that no contract knows": lambda: (
        event().replace(
            b'"status":', b"".join(b'"a%d":1,' % at for at in range(480_000)) + b'"status":'
        ),
        None,
        "invalid",
    ),
    "a member's name of eight megabytes": lambda: (
        event().replace(b'"status":', b'"' + b"n" * 8_000_000 + b'":1,"status":'),
        None,
        "invalid",
    ),
    "a batch at the limit": lambda: (batch(MAX_BATCH_EVENTS), None, "message"),
    "a batch of one event more": lambda: (
        b"[" + b"{}," * MAX_BATCH_EVENTS + b"{}]",
        None,
        "undecodable",
    ),
    "gzip members at the limit": lambda: (members(10_000), "gzip", "message"),
    "one gzip member more": lambda: (members(10_001), "gzip", "undecodable"),
    "four hundred thousand gzip members": lambda: (
        gzip.compress(b"") * 400_000,
        "gzip",
        "undecodable",
    ),
    "zstd frames at the limit": lambda: (zstd_frames(10_000), "zstd", "message"),
    "nine hundred thousand zstd frames": lambda: (
        zstandard.compress(b"") * 900_000,
        "zstd",
        "undecodable",
    ),
    "a million zstd frames to skip": lambda: (skippable(1_000_000), "zstd", "undecodable"),
    "compressed three times": lambda: (nested_compression(3), "gzip", "undecodable"),
    "more than the limit even compressed": lambda: (
        gzip.compress(b"") * 500_000,
        "gzip",
        "undecodable",
    ),
    "a gzip bomb": lambda: (gzip.compress(b" " * 32 * 1024 * 1024, 1), "gzip", "undecodable"),
    "a zstd bomb": lambda: (zstandard.compress(b" " * 32 * 1024 * 1024), "zstd", "undecodable"),
    "a zstd bomb of run lengths": lambda: (run_length_bomb(), "zstd", "undecodable"),
    "a zstd window of two gigabytes": lambda: (long_window(), "zstd", "undecodable"),
}
"""By name."""


def header(content: bytes) -> bytes:
    """A content header whose only property is a table of these bytes."""
    return struct.pack(">HHQHI", 60, 0, 0, 0x2000, len(content)) + content


def array(content: bytes) -> bytes:
    return b"\1aA" + struct.pack(">I", len(content)) + content


def arrays(depth: int) -> bytes:
    inner = b""
    for _ in range(depth):
        inner = b"A" + struct.pack(">I", len(inner)) + inner
    return b"\1a" + inner


TABLES: dict[str, tuple[bytes, bool]] = {
    "131,000 values in an array": (array(b"V" * 131_000), True),
    "65,000 entries of the same key": (b"\0V" * 65_000, True),
    "26,000 empty arrays": (array(b"A\0\0\0\0" * 26_000), True),
    "arrays at the limit of nesting": (arrays(MAX_NESTING), True),
    "arrays one level deeper": (arrays(MAX_NESTING + 1), False),
    "arrays 20,000 deep": (arrays(20_000), False),
    "a table that says it is larger than the message": (b"\1aF\xff\xff\xff\xff", False),
    "a string that runs out of its table": (b"\1aF\0\0\0\7\1aS\0\0\0\3xyz", False),
    "a type that nobody knows": (b"\1aZ", False),
    "a key without a value": (b"\1a", False),
    "a time past the calendar": (b"\1aT" + b"\x7f" * 8, False),
    "not a number": (b"\1af\x7f\xc0\0\0", True),
    "a decimal of 255 places": (b"\1aD\xff\x7f\xff\xff\xff", True),
}
"""Header tables by name, and whether each can be read."""
