"""What must hold for any bytes: one function for each way in which foreign bytes reach the worker.

Each takes bytes and raises AssertionError, or whatever the worker let through, where a promise is broken. The corpus
test, the property tests and the coverage-guided fuzzer (tests/fuzz) all call these.
"""

import asyncio
import atexit
import gzip
import itertools
import struct
from collections.abc import Callable
from typing import Any

import orjson
import zstandard

from contracts.checking import check_body
from contracts.limits import MAX_BATCH_EVENTS, MAX_ERRORS
from contracts.registry import contract_types, families
from worker.broker import properties
from worker.broker.tap import Garbled, Tap
from worker.content_encoding import Undecodable, unpack
from worker.decode import Decoder
from worker.families import plan
from worker.message import Decoded, Delivery, Message, Properties, Rejected
from worker.store import facts
from worker.store.outbox import describe

LIMIT = 64 * 1024
CHANNEL = 7
ENCODINGS = (None, "gzip", "zstd", "br")
FAMILIES = tuple(families().values())
DECODERS = tuple(Decoder(family, LIMIT, facts=plan().facts) for family in FAMILIES)
WITH_VALUES = tuple(Decoder(family, LIMIT) for family in FAMILIES)
"""The same, but they keep the JSON of large facts as values."""


def delivery(body: bytes, encoding: str | None = None, family: str = "execution-log") -> Delivery:
    """A delivery of these bytes."""
    given = Properties(content_encoding=encoding)
    return Delivery(family, 1, False, "agent.messages", "", body, given, b"")


def decode(data: bytes) -> None:
    """A byte that chooses family and encoding, then a body: Message or Rejected, whole and ready to be stored."""
    if not data:
        return
    encoding = ENCODINGS[data[0] & 3]
    at = (data[0] >> 2) % len(FAMILIES)
    decoder, family = DECODERS[at], FAMILIES[at]
    whole = delivery(data[1:], encoding, family.name)
    items = decoder.decode(whole)
    assert 1 <= len(items) <= MAX_BATCH_EVENTS
    for item in items:
        check_item(item, whole)
    _check_same(items, WITH_VALUES[at].decode(delivery(data[1:], encoding, family.name)))
    if encoding is None and isinstance(items[0], Rejected) and items[0].index is None:
        _check_against_client(whole.body, items[0])


def check_item(item: Message | Rejected, whole: Delivery) -> None:
    """A message or a rejection that the database and the broker will take."""
    assert item.delivery is whole
    if isinstance(item, Rejected):
        assert item.errors
        assert len(item.errors) <= MAX_ERRORS + 1
        assert item.index is not None or item.body == whole.body
        orjson.dumps(describe(item)[3])
        assert not holds_nul(describe(item)[3])
        assert len((item.id or "") + (item.type or "") + (item.source or "")) <= 3 * 1024
    else:
        assert isinstance(item, Message)
        assert len(item.digest) == 16
        written = orjson.loads(orjson.dumps([item.data, item.extensions]))
        assert not holds_nul([written, item.source])
        facts.event_json(item)


def _check_same(items: list[Decoded], others: list[Decoded]) -> None:
    """Whether JSON is kept as text or as values, it says the same."""
    for item, other in zip(items, others, strict=True):
        if isinstance(item, Message):
            assert isinstance(other, Message)
            assert (item.digest, item.key) == (other.digest, other.key)
            assert orjson.loads(facts.event_json(item)) == orjson.loads(facts.event_json(other))
        else:
            assert isinstance(other, Rejected)
            assert (item.errors, item.body) == (other.errors, other.body)


def _check_against_client(body: bytes, rejected: Rejected) -> None:
    """What `contracts.check` lets pass is neither undecodable nor invalid (nor, in its family, of an unknown type)."""
    if len(body) <= LIMIT and not check_body(body):
        assert rejected.reason == "unknown_type", rejected.errors
        assert contract_types()[rejected.type or ""][0].name != rejected.delivery.family


def encodings(data: bytes) -> None:
    """A byte that chooses, then a compressed body: what comes out is what others make of it, or Undecodable."""
    if not data:
        return
    encoding, body = ("gzip", "zstd")[data[0] % 2], data[1:]
    try:
        text = unpack(body, encoding, LIMIT)
    except Undecodable:
        return
    assert len(text) <= LIMIT
    if encoding == "gzip":
        assert text == gzip.decompress(body)
    elif body:
        with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True) as reader:
            assert text == reader.read()


def headers(data: bytes) -> None:
    """A content header: properties of plain JSON, fewer values than bytes; or a fault that says which property."""
    found, fault = properties.parse(data)
    assert fault is None or fault.split(":")[0]
    assert count_values(found.headers) <= len(data) + 1
    orjson.dumps([found.headers, found.message_id, found.timestamp])


def holds_nul(value: Any) -> bool:
    """Whether a text in it holds what PostgreSQL has not."""
    if isinstance(value, dict):
        return any(holds_nul([name, member]) for name, member in value.items())
    if isinstance(value, list | tuple):
        return any(map(holds_nul, value))
    return isinstance(value, str) and "\0" in value


def count_values(value: Any) -> int:
    """How many values there are in a value."""
    if isinstance(value, dict):
        return 1 + sum(map(count_values, value.values()))
    if isinstance(value, list):
        return 1 + sum(map(count_values, value))
    return 1


class Recorder:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.got: list[tuple[Any, ...]] = []

    def fits(self, size: int) -> bool:
        return size <= LIMIT

    def delivered(self, method: bytes, header: bytes, body: bytes | None) -> None:
        self.got.append(("delivered", method, header, body))

    def returned(self, method: bytes, header: bytes) -> None:
        self.got.append(("returned", method, header))

    def confirmed(self, tag: int, multiple: bool, ack: bool) -> None:
        self.got.append(("confirmed", tag, multiple, ack))

    def cancelled(self) -> None:
        self.got.append(("cancelled",))

    def closed(self) -> None:
        self.got.append(("closed",))

    def flush(self) -> None: ...


class Watched(Tap):
    """Gives up over bytes that are no AMQP, and over nothing else."""

    def _give_up(self, error: Exception) -> None:
        assert isinstance(error, (Garbled, struct.error)), error
        super()._give_up(error)


_LOOP = asyncio.new_event_loop()  # never runs: a tap only asks it for the time
atexit.register(_LOOP.close)


def read(data: bytes, places: list[int]) -> tuple[list[tuple[Any, ...]], bytes, bool]:
    """What a tap makes of a stream that comes in pieces: for the sink, for aiormq, and whether it gave up."""
    reader = asyncio.StreamReader(loop=_LOOP, limit=2**30)
    tap, sink = Watched(reader, _LOOP), Recorder()
    tap._last_heartbeat = float("inf")  # no sign of life in what is passed on
    tap.attach(CHANNEL, sink)
    cuts = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    for begin, end in itertools.pairwise(cuts):
        tap.data_received(data[begin:end])
    assert len(tap._rest) <= len(data)
    return sink.got, bytes(reader._buffer), tap._garbled


def frames(data: bytes) -> None:
    """Two cuts, then a stream: however it is cut the same arrives, nothing raises, nothing is made up."""
    cuts, stream = list(struct.unpack(">HH", data[:4].ljust(4, b"\0"))), data[4:]
    got, passed, garbled = read(stream, [])
    again, passed_again, garbled_again = read(stream, cuts)
    assert garbled == garbled_again
    if not garbled:
        assert (again, passed_again) == (got, passed)
    kept = sum(len(part) for entry in got for part in entry if isinstance(part, bytes))
    assert kept + len(passed) <= len(stream)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "decode": decode,
    "encodings": encodings,
    "headers": headers,
    "frames": frames,
}
"""By name; tests/corpus has a folder for each."""
