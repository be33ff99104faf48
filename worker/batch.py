"""Which deliveries share a transaction: what has arrived while the last one ran, within limits.

Self-clocking, like group commit: no waiting when idle, large batches under load. Owns the treatment of messages that
may have killed a worker: a batch that holds redelivered ones is smaller, down to one alone, and grows again by an
eighth of what has gone well since, so that a culprit is cornered in a few crashes and an outage costs innocents little.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from worker.message import Delivery

SUSPECT_AFTER = 3
"""Redeliveries after which a message is first handled alone."""
_CLEARED_PER_PLACE = 8
"""Suspects that have to go well for each further one in a batch: a crash leaves an eighth of the distance to search."""


class Batcher:
    """Takes batches from what has arrived for one family."""

    def __init__(self, most_deliveries: int, most_bytes: int) -> None:
        self._most_deliveries = most_deliveries
        self._most_bytes = most_bytes
        self._cleared = 0
        self._events_each = 1

    def take(self, waiting: deque[Delivery]) -> list[Delivery]:
        """The next batch, oldest first; at least one delivery if any waits, and never part of one."""
        batch: list[Delivery] = []
        limit = -(-self._most_deliveries // self._events_each)
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
        """Whether what has been decoded so far fills a transaction; a small body may have held very much.

        As many events as deliveries are enough: ten thousand in one transaction leave the worker's and the server's
        caches, and keep the other transaction waiting for its turn.
        """
        return events >= self._most_deliveries or unpacked >= self._most_bytes

    def learn(self, deliveries: int, events: int) -> None:
        """So many events were in the deliveries of a transaction: the next one takes as many deliveries as fit."""
        self._events_each = max(1, events // max(1, deliveries))

    def is_suspect(self, batch: list[Delivery]) -> bool:
        """Whether this batch is one message to be handled alone, with its attempt on record."""
        return len(batch) == 1 and self._trust == 1 and batch[0].delivery_count >= SUSPECT_AFTER

    def succeeded(self, batch: list[Delivery]) -> None:
        """A batch ended well: others that were redelivered as often may share larger ones."""
        self._cleared += sum(delivery.delivery_count >= SUSPECT_AFTER for delivery in batch)

    @property
    def _trust(self) -> int:
        """How many suspects may share a batch, by how many of them this process has handled well."""
        return min(1 + self._cleared // _CLEARED_PER_PLACE, self._most_deliveries)

    def _share(self, delivery: Delivery) -> int:
        """How many deliveries a batch with this one may hold."""
        if not delivery.redelivered:
            return self._most_deliveries
        count = delivery.delivery_count
        if count >= SUSPECT_AFTER:
            return self._trust
        return max(1, self._most_deliveries >> count)


class Solitude:
    """Lets batches of all families of a process run side by side, or one suspect with nothing beside it.

    `most_bytes` bounds the bodies that run side by side: decoded, one takes several times its size.
    """

    def __init__(self, most_bytes: int) -> None:
        self._condition = asyncio.Condition()
        self._most_bytes = most_bytes
        self._running = 0
        self._bytes = 0
        self._alone_wanted = 0
        self._alone = False

    @asynccontextmanager
    async def shared(self, batch: list[Delivery]) -> AsyncIterator[None]:
        """Run beside others, once no suspect runs or waits and the others leave room for these bodies."""
        # One that is larger than half must not wait until nothing runs: small ones would always be before it.
        size = min(sum(len(delivery.body) for delivery in batch), self._most_bytes // 2)

        def may_run() -> bool:
            room = self._bytes + size <= self._most_bytes
            return room and not self._alone and not self._alone_wanted

        async with self._condition:
            await self._condition.wait_for(may_run)
            self._running += 1
            self._bytes += size
        try:
            yield
        finally:
            async with self._condition:
                self._running -= 1
                self._bytes -= size
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
