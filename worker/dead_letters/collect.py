"""Copies every message of a queue that is not the worker's into the table, and takes it from the queue.

At least once: a message is acknowledged after the commit that holds its letter. Promises that one whose properties or
body nobody can read is copied like any other, and hides none behind it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from contracts import registry
from worker import families
from worker.batch import Batcher
from worker.broker import topology
from worker.broker.budget import ByteBudget
from worker.broker.connection import BrokerConnection
from worker.broker.consumer import Subscription
from worker.errors import Misconfigured, Unavailable
from worker.message import Decoded, Delivery, Rejected
from worker.settings import Settings
from worker.store.database import Database
from worker.store.persist import Persister
from worker.store.writer import Writer
from worker.tenants import Decode, TenantOfUser
from worker.undelivered import family_of, letter_of

_LOOK_SECONDS = 0.1


class Collector:
    """Empties one queue into the table."""

    def __init__(
        self,
        database: Database,
        connection: BrokerConnection,
        queue: str,
        settings: Settings,
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._settings = settings
        self._advance = advance
        self._families = frozenset(families.families())
        self._dead_letter_queues = {
            topology.dead_letter_queue_name(name): name for name in self._families
        }
        self._persister = Persister(
            database,
            Writer(families.plan()),
            topology.DEAD_LETTER_FAMILY,
            settings.reply_queues,
        )
        rules = settings.tenant_rules
        self._read: Decode = TenantOfUser(rules).checked(self._letters) if rules else self._letters
        self.copied = 0
        """How many messages were copied so far."""

    async def run(self) -> int:
        """Copy until the queue is empty; returns how many there were. Raises Misconfigured where it is no such queue."""
        await self._check()
        while await self._waiting():
            subscription = await Subscription.open(
                self._connection,
                {self._queue: topology.UNROUTED_FAMILY},
                ByteBudget(self._settings.memory_budget),
                self._settings.prefetch,
            )
            try:
                await self._empty(subscription)
            finally:
                await subscription.close()
        return self.copied

    async def _check(self) -> None:
        if self._queue in map(topology.queue_name, self._families):
            raise Misconfigured(
                f"{self._queue} is a queue that the worker itself reads: run 'worker run --drain' to store what is in it"
            )
        if await topology.message_count(self._connection, self._queue) is None:
            raise Misconfigured(f"there is no queue {self._queue!r} in this virtual host")

    async def _waiting(self) -> bool:
        return bool(await topology.message_count(self._connection, self._queue))

    async def _empty(self, subscription: Subscription) -> None:
        """Copy what arrives until nothing does and the broker has nothing left."""
        batcher = Batcher(self._settings.batch_messages, self._settings.batch_bytes)
        while await self._arrived(subscription):
            batch = batcher.take(subscription.waiting)
            await self._persister.persist([one for each in batch for one in self._read(each)])
            subscription.acknowledge(batch)
            batcher.succeeded(batch)
            self.copied += len(batch)
            self._advance(len(batch))

    async def _arrived(self, subscription: Subscription) -> bool:
        """Whether there is something to take; False once the queue is empty."""
        while not subscription.waiting:
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    if not await subscription.arrival():
                        raise Unavailable(f"RabbitMQ ended the reading of {self._queue}")
            except TimeoutError:
                if not subscription.in_hand and not await self._waiting():
                    return False
        return True

    def _letters(self, delivery: Delivery) -> list[Decoded]:
        return [self._letter(delivery)]

    def _letter(self, delivery: Delivery) -> Rejected:
        """The letter of a delivery: as the broker's own account of its death has it, else as it is."""
        letter = letter_of(delivery, unknown=f"it was taken from the queue {self._queue}")
        family = family_of(delivery, self._families)
        if family is None:
            known = registry.contract_types().get(letter.type or "")
            own = self._dead_letter_queues.get(self._queue, topology.UNROUTED_FAMILY)
            family = known[0].name if known else own
        original = replace(letter.delivery, family=family)
        if letter.type and (original.exchange, original.routing_key) == ("", self._queue):
            # It was put straight into this queue, where a replay has nothing to look for.
            original = replace(original, exchange=topology.MESSAGES, routing_key=letter.type)
        return replace(letter, delivery=original)
