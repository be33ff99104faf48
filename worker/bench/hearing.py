"""Hears the confirmations of a measurement, each with the time at which it came.

They come to an exclusive queue of this connection, as an agent would bind one: nothing of it outlives the connection.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from uuid import UUID

import orjson

from contracts.confirmation import EXCHANGE
from contracts.publishing.disconnections import no_cancellation_but_ours
from worker.broker.budget import ByteBudget
from worker.broker.connection import BROKER_ERRORS, BrokerConnection
from worker.broker.consumer import Subscription
from worker.errors import Unavailable

_MEMORY = 64 * 1024 * 1024
_PREFETCH = 2_000
_LOOK_EVERY = 0.5


class Hearing:
    """`persisted`: when the confirmation of each message came, by the clock of `time.monotonic`."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._news = asyncio.Event()
        self.persisted: dict[UUID, float] = {}
        self.others: Counter[str] = Counter()
        """Confirmations with another outcome, by outcome."""

    @classmethod
    @asynccontextmanager
    async def open(cls, connection: BrokerConnection) -> AsyncIterator["Hearing"]:
        """Hear everything that is confirmed until the end of the block. Raises Unavailable."""
        try:
            channel = await connection.channel()
            with no_cancellation_but_ours():
                declared = await channel.queue_declare(exclusive=True)
                queue = str(declared.queue)
                await channel.queue_bind(queue, EXCHANGE, routing_key="#")
        except BROKER_ERRORS as error:
            raise Unavailable(f"RabbitMQ gave no queue for confirmations: {error}") from error
        subscription = await Subscription.open(
            connection, {queue: "bench"}, ByteBudget(_MEMORY), _PREFETCH
        )
        hearing = cls(subscription)
        listening = asyncio.create_task(hearing._listen())
        try:
            yield hearing
        finally:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening
            await subscription.close()

    def missing(self, ids: Collection[UUID]) -> int:
        """How many of these were not confirmed as persisted."""
        return sum(key not in self.persisted for key in ids)

    async def all(self, ids: Collection[UUID], look: Callable[[], None], patience: float) -> None:
        """Wait until all of these are confirmed, or nothing has come for `patience` seconds.

        `look` is called now and then, and may raise. Raises Unavailable where the connection breaks.
        """
        loop = asyncio.get_running_loop()
        heard, silent_since = len(self.persisted), loop.time()
        while missing := self.missing(ids):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY):
                    # They come in hundreds: it takes so many before there is a point in looking for each.
                    await self._count(len(self.persisted) + missing)
            if self._subscription.ended.is_set():
                raise Unavailable("the connection to RabbitMQ broke while confirmations were heard")
            look()
            if len(self.persisted) > heard:
                heard, silent_since = len(self.persisted), loop.time()
            elif loop.time() - silent_since > patience:
                return

    async def _count(self, count: int) -> None:
        """Wait until so many were heard."""
        while len(self.persisted) < count:
            self._news.clear()
            await self._news.wait()

    async def _listen(self) -> None:
        while await self._subscription.arrival():
            now = time.monotonic()
            batch = list(self._subscription.waiting)
            self._subscription.waiting.clear()
            for delivery in batch:
                data = orjson.loads(delivery.body)["data"]
                if data["outcome"] == "persisted":
                    for item in data["items"]:
                        self.persisted.setdefault(UUID(item["id"]), now)
                else:
                    self.others[data["outcome"]] += len(data["items"])
            self._subscription.acknowledge(batch)
            self._news.set()
        self._news.set()
