"""Publishes AMQP properties that a broker accepts and client libraries die on, as raw frames."""

import asyncio
import struct
from dataclasses import dataclass, field

from worker.broker import frames
from worker.broker.connection import BrokerConnection


def short(text: bytes) -> bytes:
    return bytes((len(text),)) + text


def table(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def deep_table(depth: int) -> bytes:
    """A header table that holds a table that holds a table …"""
    inner = table(b"")
    for _ in range(depth):
        inner = table(short(b"t") + b"F" + inner)
    return inner


HEADERS, TIMESTAMP, CONTENT_TYPE, CONTENT_ENCODING, TYPE = 0x2000, 0x0040, 0x8000, 0x4000, 0x0020

HOSTILE = {
    "timestamp of 2^62": (TIMESTAMP, struct.pack(">Q", 2**62)),
    "timestamp of -1": (TIMESTAMP, struct.pack(">q", -1)),
    "header timestamp of 2^50": (HEADERS, table(short(b"t") + b"T" + struct.pack(">Q", 2**50))),
    "content type that is not UTF-8": (CONTENT_TYPE, short(b"\xff\xfe")),
    "type that is not UTF-8": (TYPE, short(b"\xc3\x28")),
    "header key that is not UTF-8": (HEADERS, table(short(b"\xff") + b"t\x01")),
    "header table 2,000 deep": (HEADERS, deep_table(2000)),
}
"""What TORTURE.md names: property flags and the bytes behind them."""


@dataclass
class _Confirms:
    """A sink that waits for one confirm."""

    answer: "asyncio.Future[bool]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def fits(self, size: int) -> bool:
        return False

    def delivered(self, method, header, body) -> None: ...

    def returned(self, method, header) -> None: ...

    def cancelled(self) -> None: ...

    def closed(self) -> None: ...

    def flush(self) -> None: ...

    def confirmed(self, tag: int, multiple: bool, ack: bool) -> None:
        self.answer.set_result(ack)


async def publish_hostile(
    connection: BrokerConnection,
    routing_key: str,
    flags: int,
    properties: bytes,
    body: bytes,
    exchange: str = "agent.messages",
) -> bool:
    """Publish a body with these property bytes; whether the broker confirmed it."""
    channel = await connection.channel(confirms=True)
    sink = _Confirms()
    connection.attach(channel, sink)
    method = frames.publish_method(exchange, routing_key, mandatory=False)
    packed = struct.pack(">H", flags) + properties
    pieces = frames.publish_frames(channel.number, method, packed, body, connection.frame_max)
    connection.write(b"".join(pieces))
    async with asyncio.timeout(20):
        confirmed = await sink.answer
    connection.detach(channel)
    await channel.close()
    return confirmed
