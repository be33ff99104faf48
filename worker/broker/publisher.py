"""Publishes with publisher confirms on a channel of its own, many messages in flight.

Promises one answer for every publish: accepted, refused (nack), returned (mandatory and unroutable) or lost with the
connection. `publish` gives a fresh AMQP message_id, so that a return is charged to the right one; properties that are
packed already bring their own where the message is mandatory.
Confirms of quorum queues come out of order, single and multiple mixed.
"""

import asyncio
from enum import Enum
from typing import Self

from aiormq.abc import AbstractChannel

from contracts.identifiers import uuid7
from contracts.publishing.disconnections import no_cancellation_but_ours
from worker.broker import frames
from worker.broker.connection import BrokerConnection
from worker.broker.properties import pack, parse
from worker.errors import Unavailable


class Answer(Enum):
    """What the broker made of one publish."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    RETURNED = "returned"
    LOST = "lost"


class ConfirmedPublisher:
    """A channel in confirm mode. Ends with its connection or channel; every open publish is then LOST."""

    def __init__(self, connection: BrokerConnection, channel: AbstractChannel) -> None:
        self._connection = connection
        self._channel = channel
        self._frame_max = connection.frame_max
        self._tag = 0
        self._open: dict[int, asyncio.Future[Answer]] = {}
        self._by_message_id: dict[str, int] = {}
        self._message_ids: dict[int, str] = {}
        self._returned: set[int] = set()
        self._unwritten: list[bytes] = []
        self.ended = asyncio.Event()
        channel.closing.add_done_callback(lambda _: self._end())

    @classmethod
    async def open(cls, connection: BrokerConnection) -> Self:
        """A publisher on a new channel of this connection."""
        channel = await connection.channel(confirms=True)
        publisher = cls(connection, channel)
        connection.attach(channel, publisher)
        return publisher

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        content_type: str | None = None,
        content_encoding: str | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        headers: dict[str, str] | None = None,
        user_id: str | None = None,
        mandatory: bool = False,
    ) -> "asyncio.Future[Answer]":
        """Send a persistent message at once; the future holds the broker's answer. Raises ValueError for names past 255 bytes."""
        message_id = str(uuid7())
        properties = pack(
            content_type=content_type,
            content_encoding=content_encoding,
            headers=headers,
            correlation_id=correlation_id,
            reply_to=reply_to,
            message_id=message_id,
            user_id=user_id,
        )
        tag = message_id if mandatory else None
        return self.publish_packed(exchange, routing_key, properties, body, mandatory_id=tag)

    def publish_packed(
        self,
        exchange: str,
        routing_key: str,
        properties: bytes,
        body: bytes,
        *,
        mandatory_id: str | None = None,
    ) -> "asyncio.Future[Answer]":
        """The same with flags and properties as bytes; `mandatory_id`, the message_id in them, makes it mandatory."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        if self.ended.is_set():
            answer.set_result(Answer.LOST)
            return answer
        mandatory = mandatory_id is not None
        method = frames.publish_method(exchange, routing_key, mandatory=mandatory)
        pieces = frames.publish_frames(
            self._channel.number, method, properties, body, self._frame_max
        )
        self._tag += 1
        self._open[self._tag] = answer
        if mandatory_id is not None:
            self._by_message_id[mandatory_id] = self._tag
            self._message_ids[self._tag] = mandatory_id
        if not self._unwritten:
            loop.call_soon(self._write)
        self._unwritten += pieces
        return answer

    async def end_reason(self) -> str:
        """What the broker said when it closed the channel, once the client library has taken note of it."""
        closing = self._channel.closing
        await asyncio.wait((closing,), timeout=5)
        error = closing.exception() if closing.done() and not closing.cancelled() else None
        return str(error or "the channel was closed")

    def _write(self) -> None:
        """Give the socket all that was published since the last turn of the loop: one call a message is slow."""
        pieces, self._unwritten = self._unwritten, []
        if pieces and not self.ended.is_set():
            self._connection.write(b"".join(pieces))

    async def drain(self) -> None:
        """Wait until the socket has taken most of what was published."""
        self._write()
        await self._connection.drain()

    async def close(self) -> None:
        """Close the channel; open publishes are LOST."""
        self._write()
        self._connection.detach(self._channel)
        if not self.ended.is_set():
            with no_cancellation_but_ours():
                await self._channel.close()
        self._end()

    def fits(self, size: int) -> bool:
        """Bodies of returned messages are not kept."""
        return size == 0

    def delivered(self, method: bytes, header: bytes, body: bytes | None) -> None:
        """Nothing is consumed on this channel."""

    def returned(self, method: bytes, header: bytes) -> None:  # noqa: ARG002 (Sink's signature)
        """Remember that a mandatory publish found no queue; its confirm follows."""
        properties, _ = parse(header)
        tag = self._by_message_id.get(properties.message_id or "")
        if tag is not None:
            self._returned.add(tag)

    def confirmed(self, tag: int, multiple: bool, ack: bool) -> None:  # noqa: FBT001 (the frame's own fields)
        """Settle one publish, or all up to it."""
        answer = Answer.ACCEPTED if ack else Answer.REFUSED
        if not multiple:
            self._settle(tag, answer)
            return
        # Tags are handed out in order and a dict keeps it: the open ones up to this tag stand in front.
        while self._open and (first := next(iter(self._open))) <= tag:
            self._settle(first, answer)

    def cancelled(self) -> None:
        """Only replies are consumed on such a channel, and they cannot be cancelled: begin anew all the same."""
        self._end()

    def closed(self) -> None:
        """The broker closes the channel: what was published and not confirmed is lost."""
        self._end()

    def flush(self) -> None:
        """Every answer is handed over as it comes."""

    def _settle(self, tag: int, answer: Answer) -> None:
        future = self._open.pop(tag, None)
        if message_id := self._message_ids.pop(tag, None):
            self._by_message_id.pop(message_id, None)
        if tag in self._returned:
            self._returned.discard(tag)
            answer = Answer.RETURNED if answer is Answer.ACCEPTED else answer
        if future is not None and not future.done():
            future.set_result(answer)

    def _end(self) -> None:
        self.ended.set()
        for tag in list(self._open):
            self._settle(tag, Answer.LOST)


async def publish_once(publisher: ConfirmedPublisher, answer: "asyncio.Future[Answer]") -> Answer:
    """The broker's answer to one publish; raises Unavailable where the connection was lost first."""
    await publisher.drain()
    result = await answer
    if result is Answer.LOST:
        raise Unavailable("the connection to RabbitMQ broke before a publish was confirmed")
    return result
