"""Consumes the queues of one family on one channel: what arrived, what is in hand, and settling it.

Promises: a delivery is acknowledged or put back exactly once, on the channel that it came from, and never after that
channel is gone; bodies in hand stay within the shared byte budget, whatever is in the queues, but for one message of a
family that holds nothing: however large, it can move.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from aiormq.abc import AbstractChannel

from contracts.publishing.disconnections import no_cancellation_but_ours
from worker.broker import frames
from worker.broker.budget import ByteBudget, Prefetch
from worker.broker.connection import BROKER_ERRORS, BrokerConnection
from worker.broker.delivery_reader import DeliveryReader
from worker.errors import Unavailable
from worker.message import Delivery

_ANSWER_SECONDS = 5
"""How long a broker may take to answer when a channel is closed; then the connection's end does it."""


class Subscription:
    """One family's consumers on one channel.

    `ended` is set when the channel, the connection or a consumer is gone: nothing arrives or can be settled any more.
    """

    def __init__(
        self,
        connection: BrokerConnection,
        channel: AbstractChannel,
        queues: Mapping[str, str],
        budget: ByteBudget,
        max_prefetch: int,
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._queues = queues
        self._budget = budget
        self._prefetch = Prefetch(budget, max_prefetch)
        self._reader = DeliveryReader()
        self._active: list[str] = []
        self._generation = itertools.count()
        self._waiting: deque[Delivery] = deque()
        self._arrived = asyncio.Event()
        self._unsettled: dict[int, int] = {}
        self._dropped: list[int] = []
        self._resizing: asyncio.Task[None] | None = None
        self._channel_closed = False
        self.ended = asyncio.Event()
        self.ended_or_stopping = asyncio.Event()
        """Set when waiting for a service to come back has no point any more."""
        channel.closing.add_done_callback(lambda _: self._end())

    @classmethod
    async def open(
        cls,
        connection: BrokerConnection,
        queues: Mapping[str, str],
        budget: ByteBudget,
        max_prefetch: int = 2000,
    ) -> "Subscription":
        """Consume these queues (queue to family) on a new channel. Raises Unavailable where one cannot be consumed."""
        channel = await connection.channel()
        subscription = cls(connection, channel, queues, budget, max_prefetch)
        connection.attach(channel, subscription)
        await subscription._consume()
        return subscription

    # --- what arrives (called by the tap) ---

    def fits(self, size: int) -> bool:
        """A body is held if the budget allows it, or if this family holds nothing: one message can always move."""
        if self.ended.is_set():
            return False
        self._follow(size)
        return self._budget.fits(size) or not self._unsettled

    def delivered(self, method: bytes, header: bytes, body: bytes | None) -> None:
        """Take a delivery into hand, or remember that its body was dropped."""
        if self.ended.is_set():
            return  # closing the channel puts it back
        if body is None:
            tag = self._reader.tag(method)
            self._dropped.append(tag)
            self._unsettled[tag] = 0
            return
        delivery = self._reader.read(method, header, body)
        self._unsettled[delivery.tag] = len(body)
        self._budget.held += len(body)
        self._waiting.append(delivery)

    def returned(self, method: bytes, header: bytes) -> None:
        """Nothing is published on this channel."""

    def confirmed(self, tag: int, multiple: bool, ack: bool) -> None:  # noqa: FBT001 (the frame's own fields)
        """Nothing is published on this channel."""

    def cancelled(self) -> None:
        """A consumer that the broker ended would be a worker that consumes nothing: begin anew."""
        self._end()

    def closed(self) -> None:
        """The broker closed the channel: there is nothing left to close."""
        self._channel_closed = True
        self._end()

    def flush(self) -> None:
        """Wake whoever waits for deliveries."""
        if self._waiting:
            self._arrived.set()
        if self._dropped and not self._held:
            self._put_back_dropped()

    # --- taking and settling ---

    @property
    def waiting(self) -> deque[Delivery]:
        """What has arrived and is not yet in a batch, oldest first."""
        return self._waiting

    @property
    def in_hand(self) -> int:
        """How many deliveries are neither acknowledged nor put back."""
        return len(self._unsettled)

    async def arrival(self) -> bool:
        """Wait until something has arrived; False once the subscription has ended or is stopping and empty."""
        while not self._waiting:
            if self.ended_or_stopping.is_set():
                return False
            self._arrived.clear()
            await self._arrived.wait()
        return not self.ended.is_set()

    def take_back(self, deliveries: Sequence[Delivery]) -> None:
        """Let these wait in front again: they were taken into a batch that is full without them."""
        if not self.ended.is_set():
            self._waiting.extendleft(reversed(deliveries))
            self._arrived.set()

    def acknowledge(self, deliveries: Collection[Delivery]) -> None:
        """Tell the broker that these are done: one frame for an unbroken run, one each for the others.

        Unsettled tags are in the order in which they came, those of dropped bodies among them: the frame for a run, which
        settles every tag up to its own, ends before the first of them that is not done.
        """
        if self.ended.is_set():
            return
        done = [delivery.tag for delivery in deliveries]
        self._budget.held -= sum(map(self._unsettled.pop, done))
        waiting = next(iter(self._unsettled), None)  # the oldest: all before it are done
        number = self._channel.number
        run = done if waiting is None else [tag for tag in done if tag < waiting]
        acks = [frames.ack_frame(number, max(run), multiple=True)] if run else []
        if waiting is not None:
            acks += [
                frames.ack_frame(number, tag, multiple=False)
                for tag in sorted(done)
                if tag > waiting
            ]
        self._connection.write(b"".join(acks))
        self._put_back_dropped()

    def release(self, deliveries: Collection[Delivery]) -> None:
        """Put these back into their queue, for this or another worker."""
        if self.ended.is_set():
            return
        tags = [delivery.tag for delivery in deliveries]
        self._budget.held -= sum(self._unsettled[tag] for tag in tags)
        self._put_back(tags)

    async def stop(self) -> None:
        """Take no more from the queues; what is in hand can still be settled."""
        self.ended_or_stopping.set()
        if not self.ended.is_set():
            try:
                if self._resizing is not None:
                    await self._resizing
                await self._cancel(self._active)
            except BROKER_ERRORS:
                self._end()
        self._arrived.set()

    async def close(self) -> None:
        """Close the channel: what is unsettled goes back to its queue.

        That holds for one whose consumer was cancelled, too: what the others on it were given would wait for ever.
        """
        self._end()
        if not self._channel_closed and not self._connection.lost.is_set():
            with suppress(*BROKER_ERRORS):
                async with asyncio.timeout(_ANSWER_SECONDS):
                    with no_cancellation_but_ours():
                        await self._channel.close()
        self._connection.detach(self._channel)

    @property
    def _held(self) -> int:
        return len(self._unsettled) - len(self._dropped)

    def _put_back_dropped(self) -> None:
        """Return dropped bodies to the queue once there is room: at once would only bring them back at once."""
        if self._dropped and (not self._held or self._budget.held <= self._budget.total // 2):
            dropped, self._dropped = self._dropped, []
            self._put_back(dropped)

    def _put_back(self, tags: list[int]) -> None:
        """Return these to their queue; their bodies are no longer counted as held."""
        for tag in tags:
            del self._unsettled[tag]
        number = self._channel.number
        self._connection.write(
            b"".join(frames.requeue_frame(number, tag, multiple=False) for tag in tags)
        )

    def _end(self) -> None:
        if not self.ended.is_set():
            self._budget.held -= sum(self._unsettled.values())
            self._unsettled.clear()
            self._waiting.clear()
            self._dropped.clear()
            self.ended.set()
            self.ended_or_stopping.set()
        self._arrived.set()

    # --- prefetch ---

    def _follow(self, size: int) -> None:
        """Consume with another prefetch where bodies of this size ask for it."""
        wanted = self._prefetch.observe(size)
        if wanted and self._resizing is None and not self.ended_or_stopping.is_set():
            self._prefetch.count = wanted
            self._resizing = asyncio.get_running_loop().create_task(self._resize())

    async def _resize(self) -> None:
        """Begin consumers with the new prefetch, then end the old ones: it cannot be changed while consuming."""
        old = self._active
        try:
            await self._consume()
            await self._cancel(old)
        except (Unavailable, *BROKER_ERRORS):
            self._end()
        finally:
            self._resizing = None

    async def _consume(self) -> None:
        generation = next(self._generation)
        try:
            with no_cancellation_but_ours():
                await self._channel.basic_qos(prefetch_count=self._prefetch.count)
                self._active = []
                for queue, family in self._queues.items():
                    consumer_tag = f"{queue}.{generation}"
                    self._reader.know(consumer_tag, family)
                    await self._channel.basic_consume(queue, _untapped, consumer_tag=consumer_tag)
                    self._active.append(consumer_tag)
        except BROKER_ERRORS as error:
            raise Unavailable(f"cannot consume: {error}") from error

    async def _cancel(self, consumer_tags: list[str]) -> None:
        with no_cancellation_but_ours():
            for consumer_tag in consumer_tags:
                await self._channel.basic_cancel(consumer_tag)


async def _untapped(message: object) -> None:
    """A delivery that reached aiormq although its channel is tapped: never, or the tap is broken."""
    raise RuntimeError(f"a delivery went past the tap: {type(message).__name__}")
