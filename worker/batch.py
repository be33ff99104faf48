"""Which deliveries share a transaction: what has arrived while the last one ran, within limits.

Self-clocking, like group commit: no waiting when idle, large batches under load. Owns the treatment of messages that
may have killed a worker: a batch that holds redelivered ones is smaller, down to one alone, and grows again by
doubling with every success, so that a culprit is cornered in a few crashes and an outage costs innocents little.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from contracts.limits import MAX_BATCH_EVENTS
from worker.message import Delivery

SUSPECT_AFTER = 3
"""Redeliveries after which a message is first handled alone."""


class Batcher:
    """Takes batches from what has arrived for one family."""

    def __init__(self, most_deliveries: int, most_bytes: int) -> None:
        self._most_deliveries = most_deliveries
        self._most_bytes = most_bytes
        self._trust = 1

    def take(self, waiting: deque[Delivery]) -> list[Delivery]:
        """The next batch, oldest first; at least one delivery if any waits, and never part of one."""
        batch: list[Delivery] = []
        limit = self._most_deliveries
        size = 0
        while waiting and len(batch) < limit:
            delivery = waiting[0]
            limit = min(limit, self._share(delivery))
            size += len(delivery.body)
            if batch and (len(batch) >= limit or size > self._most_bytes):
                break
            batch.append(waiting.popleft())
        return batch

    def is_full(self, events: int, unpacked: int) -> bool:
        """Whether what has been decoded so far fills a transaction; a small body may have held very much."""
        return events >= MAX_BATCH_EVENTS or unpacked >= self._most_bytes

    def is_suspect(self, batch: list[Delivery]) -> bool:
        """Whether this batch is one message to be handled alone, with its attempt on record."""
        return len(batch) == 1 and self._trust == 1 and batch[0].delivery_count >= SUSPECT_AFTER

    def succeeded(self, batch: list[Delivery]) -> None:
        """A batch ended well: messages like its most often redelivered one may share twice as much."""
        if any(delivery.delivery_count >= SUSPECT_AFTER for delivery in batch):
            self._trust = min(2 * self._trust, self._most_deliveries)

    def _share(self, delivery: Delivery) -> int:
        """How many deliveries a batch with this one may hold."""
        if not delivery.redelivered:
            return self._most_deliveries
        count = delivery.delivery_count
        if count >= SUSPECT_AFTER:
            return self._trust
        return max(1, self._most_deliveries >> count)


class Solitude:
    """Lets batches of all families of a process run side by side, or one suspect with nothing beside it."""

    def __init__(self) -> None:
        self._condition = asyncio.Condition()
        self._running = 0
        self._alone_wanted = 0
        self._alone = False

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Run beside others, once no suspect runs or waits."""
        async with self._condition:
            await self._condition.wait_for(lambda: not self._alone and not self._alone_wanted)
            self._running += 1
        try:
            yield
        finally:
            async with self._condition:
                self._running -= 1
                self._condition.notify_all()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Run with nothing beside, once what runs has ended."""
        self._alone_wanted += 1
        try:
            async with self._condition:
                await self._condition.wait_for(lambda: not self._running and not self._alone)
                self._alone = True
            try:
                yield
            finally:
                self._alone = False
        finally:
            self._alone_wanted -= 1
            async with self._condition:
                self._condition.notify_all()
