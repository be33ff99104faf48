"""Fills and watches queues: publishing a backlog, counting what waits, hearing confirmations.

Owns the harness's own connection to the broker. Publishing is confirmed, so a backlog is there when `publish` returns.
"""

import asyncio
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import orjson

from benchmarks.load import Body
from contracts.confirmation import EXCHANGE
from contracts.envelope import CONTENT_TYPE, CONTENT_TYPE_BATCH
from worker.broker import topology
from worker.broker.budget import ByteBudget
from worker.broker.connection import BrokerConnection, connect
from worker.broker.consumer import Subscription
from worker.broker.publisher import Answer, ConfirmedPublisher
from worker.families import families

CONFIRMATIONS = "bench.confirmations"
"""A queue that hears every confirmation, bound as an agent would bind its own: transient, of this connection alone."""

_WINDOW = 2_000
_MEMORY = 512 * 1024 * 1024


class Broker:
    """One virtual host, seen by the harness."""

    def __init__(self, connection: BrokerConnection) -> None:
        self._connection = connection
        self._channel: Any = None

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect, declare the worker's topology and begin to hear confirmations."""
        connection = await connect(url, name="bench")
        wanted = topology.topology(family.contract for family in families().values())
        await topology.apply(connection, wanted)
        broker = cls(connection)
        broker._channel = await connection.channel()
        await broker._channel.queue_declare(CONFIRMATIONS, exclusive=True, durable=False)
        await broker._channel.queue_bind(CONFIRMATIONS, EXCHANGE, routing_key="#")
        return broker

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._connection.close()

    async def publish(self, bodies: Iterable[Body], exchange: str = topology.MESSAGES) -> None:
        """Publish these and wait until the broker has them all."""
        publisher = await ConfirmedPublisher.open(self._connection)
        open_: list[asyncio.Future[Answer]] = []
        for body in bodies:
            kind = CONTENT_TYPE_BATCH if body.content[:1] == b"[" else CONTENT_TYPE
            open_.append(
                publisher.publish(exchange, body.routing_key, body.content, content_type=kind)
            )
            if len(open_) >= _WINDOW:
                await publisher.drain()
                await _accepted(open_[: _WINDOW // 2])
                del open_[: _WINDOW // 2]
        await publisher.drain()
        await _accepted(open_)
        await publisher.close()

    async def waiting(self, queues: Iterable[str]) -> int:
        """How many messages wait in these queues; what is delivered and not acknowledged does not count."""
        answers = [await self._channel.queue_declare(queue, passive=True) for queue in queues]
        return sum(answer.message_count or 0 for answer in answers)

    async def confirmations(self) -> list[dict[str, Any]]:
        """The data of every confirmation heard so far; they are taken out of the queue."""
        expected = await self.waiting([CONFIRMATIONS])
        subscription = await Subscription.open(
            self._connection, {CONFIRMATIONS: "bench"}, ByteBudget(_MEMORY), 2_000
        )
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(60):
            while len(found) < expected and await subscription.arrival():
                batch = list(subscription.waiting)
                subscription.waiting.clear()
                found += (orjson.loads(delivery.body)["data"] for delivery in batch)
                subscription.acknowledge(batch)
        await subscription.close()
        return found


async def _accepted(answers: Sequence["asyncio.Future[Answer]"]) -> None:
    for answer in await asyncio.gather(*answers):
        if answer is not Answer.ACCEPTED:
            raise RuntimeError(f"a message of the backlog was {answer.value}")
