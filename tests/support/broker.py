"""A plain AMQP client for tests: it knows the wire and nothing of the worker's own broker code, except the topology."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aio_pika
import aiormq

from contracts import Event, registry
from worker.broker import topology
from worker.broker.connection import connect


async def clean_topology(url: str) -> None:
    """Queues that are empty and bound as they should be, with nobody listening.

    Making a quorum queue anew takes the broker ten milliseconds, and there are many: one in which nothing waits, and to
    which nobody listens, is left as it is. (Who holds messages of it listens, until it is gone.)
    """
    connection = await connect(url, name="clean")
    try:
        used = await _declare(connection)
        if used:
            channel = await connection.channel()
            for name in used:
                await channel.queue_delete(name)
            await _declare(connection)
    except aiormq.exceptions.ChannelPreconditionFailed:  # a test put something else in its place
        await new_topology(url)
    finally:
        await connection.close()


async def new_topology(url: str) -> None:
    """Exchanges and queues that were all made just now."""
    connection = await connect(url, name="new")
    wanted = topology.topology(registry.families().values())
    try:
        channel = await connection.channel()
        for exchange in wanted.exchanges:
            await channel.exchange_delete(exchange.name)
        for queue in wanted.queues:
            await channel.queue_delete(queue.name)
        await _declare(connection)
    finally:
        await connection.close()


async def _declare(connection: Any) -> list[str]:
    """Declare and bind everything; the names of queues that hold messages or have listeners."""
    wanted = topology.topology(registry.families().values())
    channel = await connection.channel()
    used = []
    for exchange in wanted.exchanges:
        await channel.exchange_declare(
            exchange.name, exchange_type=exchange.type, durable=True, arguments=exchange.arguments
        )
    for queue in wanted.queues:
        found = await channel.queue_declare(queue.name, durable=True, arguments=queue.arguments)
        if found.message_count or found.consumer_count:
            used.append(queue.name)
        for routing_key in queue.routing_keys:
            await channel.queue_bind(queue.name, queue.exchange, routing_key=routing_key)
    await channel.close()
    return used


@dataclass
class Reply:
    """A confirmation event that came back, and what it was the answer to."""

    correlation_id: str | None
    event: dict[str, Any]

    @property
    def outcome(self) -> str:
        return self.event["data"]["outcome"]

    @property
    def items(self) -> list[dict[str, Any]]:
        return self.event["data"]["items"]


@dataclass
class Client:
    """Publishes with confirms and collects confirmations."""

    channel: Any
    exchange: Any
    replies: "asyncio.Queue[Reply]" = field(default_factory=asyncio.Queue)
    confirmations: "asyncio.Queue[Reply]" = field(default_factory=asyncio.Queue)
    seen: list[Reply] = field(default_factory=list)

    async def publish(
        self, *events: Event | bytes, routing_key: str | None = None, **properties: Any
    ) -> None:
        """Publish events, or raw bodies, one message each; returns when the broker has all of them."""
        for event in events:
            body = event if isinstance(event, bytes) else event.to_json()
            key = routing_key or (event.type if isinstance(event, Event) else "execution.logged")
            await self.publish_raw(body, key, **properties)

    async def publish_batch(
        self, events: Iterable[Event | bytes], routing_key: str, **properties: Any
    ) -> None:
        bodies = [event if isinstance(event, bytes) else event.to_json() for event in events]
        properties.setdefault("content_type", "application/cloudevents-batch+json")
        await self.publish_raw(b"[" + b",".join(bodies) + b"]", routing_key, **properties)

    async def publish_raw(
        self, body: bytes, routing_key: str, *, reply: bool = False, **properties: Any
    ) -> None:
        properties.setdefault("content_type", "application/cloudevents+json")
        if reply:
            properties["reply_to"] = "amq.rabbitmq.reply-to"
        message = aio_pika.Message(body, delivery_mode=2, **properties)
        await self.exchange.publish(message, routing_key, mandatory=False)

    async def reply(self) -> Reply:
        """The next direct reply."""
        return await asyncio.wait_for(self.replies.get(), 20)

    async def confirmed(self, count: int) -> dict[str, list[dict[str, Any]]]:
        """Confirmation items by outcome, once this many have come."""
        found: dict[str, list[dict[str, Any]]] = {}
        while sum(map(len, found.values())) < count:
            reply = await asyncio.wait_for(self.confirmations.get(), 90)
            self.seen.append(reply)
            found.setdefault(reply.outcome, []).extend(reply.items)
        return found


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Client]:
    """A connected client that hears every confirmation from now on."""
    connection = await aio_pika.connect(url)
    try:
        channel = await connection.channel(publisher_confirms=True)
        exchange = await channel.get_exchange(topology.MESSAGES, ensure=False)
        client = Client(channel, exchange)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(topology.CONFIRMATIONS, "#")
        await queue.consume(_into(client.confirmations), no_ack=True)
        direct = await channel.get_queue("amq.rabbitmq.reply-to", ensure=False)
        await direct.consume(_into(client.replies), no_ack=True)
        yield client
    finally:
        await connection.close()


def _into(replies: "asyncio.Queue[Reply]") -> Any:
    async def collect(message: Any) -> None:
        replies.put_nowait(Reply(message.correlation_id, json.loads(message.body)))

    return collect
