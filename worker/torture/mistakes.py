"""Messages that nobody should publish, of many kinds, each with an id of the ledger by which its dead letter is known."""

import gzip
import json
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

from contracts.envelope import Event
from contracts.example_files import Example, examples
from contracts.identifiers import uuid7
from contracts.registry import contract_types
from worker.broker.properties import short_string
from worker.torture.ledger import Kind, Ledger
from worker.torture.raw import Parcel

SOURCE = "/agents/careless"

_LOG = "execution.logged"
_DEEP = 10_000
_BOMB = 12 * 1024 * 1024


def mistakes(ledger: Ledger, stored: Event, chance: random.Random) -> Iterator[Parcel]:
    """One of each sort; `stored` is an entry of an execution log whose row is there, to be contradicted."""
    good = json.loads(stored.to_json())
    yield _invalid(ledger, chance)
    yield _changed(ledger, Kind.UNKNOWN_TYPE, good, type="execution.daydreamed")
    yield _changed(ledger, Kind.UNROUTABLE, good, type="weather.observed")
    other = {**good["data"], "action": f"says that it did something else {chance.random()}"}
    yield _changed(ledger, Kind.CONFLICT, good, id=good["id"], data=other)
    yield _undecodable(ledger, chance)
    yield _hostile(ledger, good, chance)


def rivals(ledger: Ledger, event: Event) -> tuple[Parcel, Parcel]:
    """Two messages with one id that say different things; nobody knows which comes first."""
    first, second = ledger.issue_pair(Kind.RIVAL)
    data = {**event.data, "log_id": str(uuid7())}
    one = {**json.loads(event.to_json()), "id": str(first), "data": data}
    two = {**one, "data": {**data, "action": "remembers it otherwise"}}
    return _parcel(first, one), _parcel(second, two)


def twins(ledger: Ledger, event: Event) -> tuple[Event, Event]:
    """Two events with one key that say the same; the event's data has its key."""
    first, second = ledger.issue_pair(Kind.TWIN)
    return event.model_copy(update={"id": first}), event.model_copy(update={"id": second})


def _parcel(key: Any, event: dict[str, Any]) -> Parcel:
    return Parcel((key,), event["type"], json.dumps(event).encode())


def _changed(ledger: Ledger, kind: Kind, good: dict[str, Any], **changes: Any) -> Parcel:
    """The event with these changes, and an id of its own unless that is among them."""
    key = ledger.issue(kind)
    return _parcel(key, {**good, "id": str(key), "source": SOURCE, **changes})


def invalid_examples() -> list[Example]:
    """Examples that break the contract of a type which a worker takes, in a place other than the id."""
    types = contract_types()
    return [
        example
        for example in examples()
        if not example.valid
        and example.type in types
        and all(place[:1] != ("id",) for place, _ in example.errors)
    ]


def _invalid(ledger: Ledger, chance: random.Random) -> Parcel:
    example = chance.choice(invalid_examples())
    key = ledger.issue(Kind.INVALID)
    event = {**example.event, "id": str(key)}
    return Parcel((key,), example.type, json.dumps(event).encode())


def _undecodable(ledger: Ledger, chance: random.Random) -> Parcel:
    key = ledger.issue(Kind.UNDECODABLE)
    body, encoding = chance.choice(_BODIES)(str(key))
    return Parcel((key,), _LOG, body, content_encoding=encoding)


def _json(key: str, value: str) -> bytes:
    return f'{{"id": "{key}", "type": "{_LOG}", "data": {value}}}'.encode()


_BODIES: tuple[Callable[[str], tuple[bytes, str | None]], ...] = (
    lambda key: (f'{{"id": "{key}", "type": "exec'.encode(), None),
    lambda _: (b"", None),
    lambda key: (_json(key, '"\xff"').replace("\xff".encode(), b"\xff"), None),
    lambda key: (b"\xef\xbb\xbf" + _json(key, "{}"), None),
    lambda key: (_json(key, '"\\ud800"'), None),
    lambda key: (_json(key, "NaN"), None),
    lambda key: (_json(key, "1e400"), None),
    lambda key: (_json(key, "18446744073709551616"), None),
    lambda key: (_json(key, "[" * _DEEP + "]" * _DEEP), None),
    lambda key: (_json(key, "{}"), "gzip"),
    lambda key: (_json(key, "{}"), "rot13"),
    lambda key: (gzip.compress(_json(key, '"' + " " * _BOMB + '"')), "gzip"),
)


def _hostile(ledger: Ledger, good: dict[str, Any], chance: random.Random) -> Parcel:
    """A good event with AMQP properties that a broker takes and client libraries die on."""
    key = ledger.issue(Kind.HOSTILE)
    flags, rest = chance.choice(_PROPERTIES)
    # Only what stands before the broken property can be read: nothing but the body says who it is.
    event = {**good, "id": str(key), "source": SOURCE}
    packed = struct.pack(">H", flags) + rest
    return Parcel((key,), _LOG, json.dumps(event).encode(), asks=False, hostile=packed)


def _table(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def _deep_table(depth: int) -> bytes:
    inner = _table(b"")
    for _ in range(depth):
        inner = _table(short_string("t") + b"F" + inner)
    return inner


_HEADERS, _TIMESTAMP, _CONTENT_TYPE = 0x2000, 0x0040, 0x8000
_PROPERTIES = (
    (_TIMESTAMP, struct.pack(">Q", 2**62)),
    (_TIMESTAMP, struct.pack(">q", -1)),
    (_HEADERS, _table(short_string("t") + b"T" + struct.pack(">Q", 2**50))),
    (_CONTENT_TYPE, b"\x02\xff\xfe"),
    (_HEADERS, _deep_table(2000)),
)
