"""What is told to the broker, and what the broker's answers are taken for, frame by frame."""

import asyncio
import struct
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.broker import frames
from worker.broker.budget import ByteBudget
from worker.broker.consumer import Subscription
from worker.broker.publisher import Answer, ConfirmedPublisher


class Wire:
    """The sending side of a connection: keeps the frames that are written, as the broker would read them."""

    frame_max = 131_072

    def __init__(self) -> None:
        self.written = b""

    def write(self, raw: bytes) -> None:
        self.written += raw

    def settlements(self) -> list[tuple[int, int, int]]:
        """Method, tag and bits of every settlement."""
        found, at = [], 0
        while at < len(self.written):
            kind, _, size = struct.unpack_from(">BHI", self.written, at)
            payload = self.written[at + 7 : at + 7 + size]
            if kind == 1 and payload[:2] == b"\0\x3c":
                _, method, tag, bits = struct.unpack(">HHQB", payload)
                found.append((method, tag, bits))
            at += size + 8
        return found


def channel() -> Any:
    return SimpleNamespace(number=1, closing=asyncio.get_running_loop().create_future())


ACK, NACK, MULTIPLE, REQUEUE = 80, 120, 1, 2


@given(st.integers(1, 30), st.lists(st.sets(st.integers(1, 30)), max_size=6))
def test_exactly_what_is_done_is_acknowledged(count, batches):
    """Whatever order batches end in: a frame over many tags covers none that is unfinished or was never handed out."""

    async def settle() -> None:
        wire = Wire()
        subscription = Subscription(wire, channel(), {}, ByteBudget(10**6), 2000)
        subscription._reader.know("c", "execution-log")
        for tag in range(1, count + 1):
            method = b"\x00\x3c\x00\x3c\x01c" + struct.pack(">QB", tag, 0) + b"\x01e\x01k"
            subscription.delivered(method, struct.pack(">HHQH", 60, 0, 1, 0), b"x")
        handed_out = {delivery.tag: delivery for delivery in subscription.waiting}
        open_tags, done = set(handed_out), set()
        for batch in batches:
            now = batch & open_tags
            subscription.acknowledge([handed_out[tag] for tag in sorted(now)])
            open_tags -= now
            done |= now
            assert covered(wire, count) == done
        subscription.release([handed_out[tag] for tag in sorted(open_tags)])
        back = [
            tag for method, tag, bits in wire.settlements() if (method, bits) == (NACK, REQUEUE)
        ]
        assert back == sorted(open_tags)

    asyncio.run(settle())


def covered(wire: Wire, count: int) -> set[int]:
    """The tags that were acknowledged, as the broker counts them: each once, and none that it does not know."""
    acknowledged: set[int] = set()
    for method, tag, bits in wire.settlements():
        assert method == ACK
        assert 1 <= tag <= count
        now = set(range(1, tag + 1)) - acknowledged if bits & MULTIPLE else {tag}
        assert now
        assert not now & acknowledged
        acknowledged |= now
    return acknowledged


@pytest.mark.parametrize("multiple", [False, True])
@pytest.mark.parametrize("ack", [True, False])
@pytest.mark.parametrize("returned", [False, True])
async def test_every_publish_gets_the_brokers_own_answer(multiple, ack, returned):
    """A nack is no success, and neither is a message that came back because no queue took it."""
    wire = Wire()
    publisher = ConfirmedPublisher(wire, channel())
    answers = [publisher.publish("e", "k", b"x", mandatory=True) for _ in range(3)]
    if returned:
        [message_id] = [name for name, tag in publisher._by_message_id.items() if tag == 2]
        header = struct.pack(">HHQH", 60, 0, 1, 0x0080) + frames._short(message_id)
        publisher.returned(b"", header)
    publisher.confirmed(2, multiple, ack)
    expected = (Answer.RETURNED if returned else Answer.ACCEPTED) if ack else Answer.REFUSED
    assert answers[1].result() is expected
    assert answers[0].done() is multiple
    assert not multiple or answers[0].result() is (Answer.ACCEPTED if ack else Answer.REFUSED)
    publisher._end()
    assert answers[2].result() is Answer.LOST
