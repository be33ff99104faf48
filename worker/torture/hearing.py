"""Hears every confirmation and every reply, over lost connections and restarts of the broker.

Both come to durable queues of this run and are acknowledged after they are in the ledger, so that none is missed.
"""

import asyncio
import contextlib
import random
import time
from typing import Any

import orjson

from contracts.confirmation import EXCHANGE
from contracts.publishing.disconnections import no_cancellation_but_ours
from worker.broker.connection import BROKER_ERRORS, BrokerConnection, connect
from worker.broker.topology import message_count
from worker.errors import Misconfigured, Unavailable
from worker.torture.ledger import Ledger

REPLIES = "agent.replies.torture"
CONFIRMATIONS = "torture.confirmations"
QUEUES = (REPLIES, CONFIRMATIONS)
_ARGUMENTS: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
_PREFETCH = 400
_ACKNOWLEDGE_EVERY = 100
_ACKNOWLEDGE_SECONDS = 0.1


async def declare(connection: BrokerConnection) -> None:
    """Make the queues, before the first message is published."""
    channel = await connection.channel()
    for queue in QUEUES:
        await channel.queue_declare(queue, durable=True, arguments=dict(_ARGUMENTS))
    await channel.queue_bind(CONFIRMATIONS, EXCHANGE, routing_key="#")
    await channel.close()


async def delete(connection: BrokerConnection) -> None:
    """Remove the queues."""
    channel = await connection.channel()
    for queue in QUEUES:
        await channel.queue_delete(queue)
    await channel.close()


class Hearing:
    """Listens until it is cancelled. `longest_silence` is the longest time without news while something was under way."""

    def __init__(self, url: str, ledger: Ledger) -> None:
        self._url = url
        self._ledger = ledger
        self.heard = 0
        self.longest_silence = 0.0
        self._silent_since = time.monotonic()

    @property
    def silence(self) -> float:
        """Seconds since the last news, while something is under way."""
        return time.monotonic() - self._silent_since if self._ledger.under_way else 0.0

    async def run(self) -> None:
        """Connect and listen, again and again."""
        while True:
            try:
                connection = await connect(self._url, name="torture hearing")
            except (Unavailable, Misconfigured):
                await asyncio.sleep(random.uniform(0.1, 0.5))  # noqa: S311 (jitter)
                continue
            try:
                with no_cancellation_but_ours():
                    for queue in QUEUES:
                        await self._listen(connection, queue)
                await connection.lost.wait()
            except (*BROKER_ERRORS, Unavailable):
                await asyncio.sleep(0.1)
            finally:
                await connection.close()

    async def watch(self) -> None:
        """Keep the figure of the longest silence."""
        while True:
            if not self._ledger.under_way:
                self._silent_since = time.monotonic()
            self.longest_silence = max(self.longest_silence, self.silence)
            await asyncio.sleep(0.1)

    async def _listen(self, connection: BrokerConnection, queue: str) -> None:
        channel = await connection.channel()
        await channel.basic_qos(prefetch_count=_PREFETCH)
        taken = _Taken(channel)
        take = self._reply if queue == REPLIES else self._confirmation

        async def on_message(message: Any) -> None:
            take(message)
            self._silent_since = time.monotonic()
            taken.add(message.delivery.delivery_tag)

        await channel.basic_consume(queue, on_message)

    def _confirmation(self, message: Any) -> None:
        data = orjson.loads(message.body)["data"]
        for item in data["items"]:
            self.heard += 1
            self._ledger.note_heard(item["id"], data["outcome"])

    def _reply(self, message: Any) -> None:
        self._ledger.note_answered(message.header.properties.correlation_id)
        for item in orjson.loads(message.body)["data"]["items"]:
            self._ledger.note_answered(item["id"])


class _Taken:
    """Deliveries of one channel that are in the ledger, acknowledged many at a time."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._last = 0
        self._waiting = 0
        self._task: asyncio.Task[None] | None = None

    def add(self, tag: int) -> None:
        self._last = max(self._last, tag)
        self._waiting += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._acknowledge())

    async def _acknowledge(self) -> None:
        await asyncio.sleep(0 if self._waiting > _ACKNOWLEDGE_EVERY else _ACKNOWLEDGE_SECONDS)
        self._waiting = 0
        try:
            await self._channel.basic_ack(self._last, multiple=True, wait=False)
        except BROKER_ERRORS:
            return  # what was not acknowledged comes again, and is known by then


async def until_empty(url: str, within: float = 60) -> None:
    """Wait until everything in the queues is heard."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            connection = await connect(url, name="torture hearing")
            try:
                while any([await message_count(connection, queue) for queue in QUEUES]):  # noqa: ASYNC110 (RabbitMQ does not tell)
                    await asyncio.sleep(0.1)
                await asyncio.sleep(2 * _ACKNOWLEDGE_SECONDS)
            finally:
                await connection.close()
