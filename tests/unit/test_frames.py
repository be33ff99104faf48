"""The tap of the byte stream: frames may be split and joined anywhere, and nothing that is ours gets past it."""

import asyncio
import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.broker import frames
from worker.broker.tap import Tap

CHANNEL, OTHER = 7, 3


class Recorder:
    """A sink that keeps what it is given."""

    def __init__(self, budget: int = 10**9) -> None:
        self.budget = budget
        self.got: list[tuple] = []
        self.flushed = 0

    def fits(self, size: int) -> bool:
        return size <= self.budget

    def delivered(self, method, header, body) -> None:
        self.got.append(("delivered", method, header, body))

    def returned(self, method, header) -> None:
        self.got.append(("returned", method, header))

    def confirmed(self, tag, multiple, ack) -> None:
        self.got.append(("confirmed", tag, multiple, ack))

    def cancelled(self) -> None:
        self.got.append(("cancelled",))

    def closed(self) -> None:
        self.got.append(("closed",))

    def flush(self) -> None:
        self.flushed += 1


def deliver_method(tag: int) -> bytes:
    return b"\x00\x3c\x00\x3c\x01c" + struct.pack(">QB", tag, 0) + b"\x01e\x01k"


def delivery(tag: int, body: bytes, channel: int = CHANNEL, largest: int = 4096) -> bytes:
    """The frames of one delivery, its body in frames of at most `largest` bytes."""
    header = struct.pack(">HHQH", 60, 0, len(body), 0)
    pieces = [body[at : at + largest] for at in range(0, len(body), largest)]
    return b"".join(
        [
            frames.frame(1, channel, deliver_method(tag)),
            frames.frame(2, channel, header),
            *(frames.frame(3, channel, piece) for piece in pieces),
        ]
    )


def confirm(tag: int, *, multiple: bool, ack: bool) -> bytes:
    method = b"\x00\x3c\x00\x50" if ack else b"\x00\x3c\x00\x78"
    return frames.frame(1, CHANNEL, method + struct.pack(">QB", tag, multiple))


HEARTBEAT = frames.frame(8, 0, b"")


class Stream:
    """A tap and what it passed on to aiormq."""

    def __init__(self, sink: Recorder) -> None:
        self.loop = asyncio.new_event_loop()
        self.reader = asyncio.StreamReader(loop=self.loop, limit=2**30)
        self.tap = Tap(self.reader, self.loop)
        self.tap.attach(CHANNEL, sink)

    def feed(self, data: bytes, cuts: list[int]) -> bytes:
        """Feed the bytes cut at these places; returns what was passed on, without the signs of life."""
        places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
        for start, end in itertools.pairwise(places):
            self.tap.data_received(data[start:end])
        self.loop.close()
        return bytes(self.reader._buffer)


pieces = st.one_of(
    st.tuples(
        st.just("delivery"), st.integers(1, 2**63), st.binary(max_size=300), st.integers(1, 100)
    ),
    st.tuples(st.just("confirm"), st.integers(1, 2**63), st.booleans(), st.booleans()),
    st.tuples(st.just("other"), st.binary(max_size=100)),
    st.tuples(st.just("foreign delivery"), st.integers(1, 2**63), st.binary(max_size=50)),
)


@given(st.lists(pieces, max_size=12), st.lists(st.integers(0, 10**6), max_size=20))
def test_however_the_bytes_are_cut_every_frame_arrives_once_and_in_order(script, cuts):
    """Ours go to the sink whole; all others reach aiormq byte for byte."""
    data, expected, passed = b"", [], b""
    for kind, *rest in script:
        if kind == "delivery":
            tag, body, largest = rest
            data += delivery(tag, body, largest=largest)
            header = struct.pack(">HHQH", 60, 0, len(body), 0)
            expected.append(("delivered", deliver_method(tag), header, body))
        elif kind == "confirm":
            tag, multiple, ack = rest
            data += confirm(tag, multiple=multiple, ack=ack)
            expected.append(("confirmed", tag, multiple, ack))
        elif kind == "other":
            foreign = frames.frame(1, OTHER, b"\x00\x14\x00\x0b" + rest[0])
            data += foreign
            passed += foreign
        else:
            foreign = delivery(rest[0], rest[1], channel=OTHER)
            data += foreign
            passed += foreign
    sink = Recorder()
    assert Stream(sink).feed(data, cuts) == passed
    assert sink.got == expected


@given(st.binary(max_size=2000), st.lists(st.integers(0, 10**6), max_size=10))
def test_rubbish_never_raises(data, cuts):
    """Bytes that are no frames are passed on, held back or dropped, never an exception."""
    Stream(Recorder()).feed(data, cuts)


def test_a_body_over_the_budget_is_dropped_while_it_arrives():
    """The sink hears of the delivery, with no body, and the next one is whole again."""
    sink = Recorder(budget=10)
    Stream(sink).feed(delivery(1, b"x" * 5000) + delivery(2, b"small"), [100, 3000])
    assert [(entry[0], entry[3]) for entry in sink.got] == [
        ("delivered", None),
        ("delivered", b"small"),
    ]


def test_aiormq_is_shown_a_sign_of_life_while_only_our_frames_arrive(monkeypatch):
    """Its clock sees only what reaches its reader; without this the connection would be declared dead."""
    stream = Stream(Recorder())
    times = iter([0.0, 0.5, 2.0, 2.5, 4.0])
    monkeypatch.setattr(stream.loop, "time", lambda: next(times))
    stream.tap._last_heartbeat = 0.0
    passed = b""
    for tag in range(5):
        stream.tap.data_received(delivery(tag, b"x"))
        passed = bytes(stream.reader._buffer)
    stream.loop.close()
    assert passed == 2 * HEARTBEAT


def test_a_consumer_that_the_broker_cancels_is_noticed_and_the_frame_passed_on():
    """A connected worker that consumes nothing must not look well."""
    sink = Recorder()
    cancel = frames.frame(1, CHANNEL, b"\x00\x3c\x00\x1e\x01c\x00")
    assert Stream(sink).feed(cancel, []) == cancel
    assert sink.got == [("cancelled",)]


def test_a_return_is_told_before_its_confirm():
    """A mandatory publish that no queue took comes back as method, header and body."""
    header = struct.pack(">HHQH", 60, 0, 3, 0)
    data = b"".join(
        [
            frames.frame(1, CHANNEL, b"\x00\x3c\x00\x32" + b"rest"),
            frames.frame(2, CHANNEL, header),
            frames.frame(3, CHANNEL, b"abc"),
            confirm(1, multiple=False, ack=True),
        ]
    )
    sink = Recorder()
    Stream(sink).feed(data, [5, 20])
    assert [entry[0] for entry in sink.got] == ["returned", "confirmed"]


def test_names_past_255_bytes_are_refused_before_anything_is_sent():
    """AMQP's short strings hold no more."""
    with pytest.raises(ValueError, match="255"):
        frames.publish_method("e" * 256, "k", mandatory=False)


@given(st.binary(max_size=5000), st.integers(100, 1000))
def test_a_published_body_is_cut_to_the_frame_size_and_whole_again_when_read(body, frame_max):
    """What we write is what a reader of frames puts together."""
    pieces = frames.publish_frames(CHANNEL, b"method", b"\x00\x00", body, frame_max)
    assert all(len(piece) <= frame_max for piece in pieces[2:])
    payload = b"".join(piece[7:-1] for piece in pieces[2:])
    assert payload == body
