"""The broker alone: its round trip, publishing, and how fast it hands out a backlog that is acknowledged unread.

It uses the worker's own queues and code on the wire, while no worker runs: what it consumes is gone afterwards.
"""

import asyncio
import contextlib
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass

from contracts.envelope import CONTENT_TYPE
from worker.bench.events import Item
from worker.broker import topology
from worker.broker.budget import ByteBudget
from worker.broker.connection import BROKER_ERRORS, BrokerConnection, connect
from worker.broker.consumer import Subscription
from worker.broker.outgoing import Fate, Outgoing
from worker.broker.sender import Sender
from worker.errors import Unavailable
from worker.settings import Settings

_ROUND_TRIPS = 100
_PATIENCE = 60.0


@dataclass(frozen=True)
class BrokerAlone:
    """Publishing with confirms, and consuming with acknowledgements, in messages a second."""

    messages: int
    publish_rate: float
    rate: float


async def round_trip(connection: BrokerConnection) -> float:
    """The median in seconds of a question that the broker answers from memory. Raises Unavailable."""
    channel = await connection.channel()
    taken = []
    try:
        for _ in range(_ROUND_TRIPS):
            begin = time.perf_counter()
            await channel.exchange_declare(topology.MESSAGES, exchange_type="topic", passive=True)
            taken.append(time.perf_counter() - begin)
        await channel.close()
    except BROKER_ERRORS as error:
        raise Unavailable(f"RabbitMQ did not answer: {error}") from error
    return statistics.median(taken)


class Fates:
    """What became of published messages."""

    def __init__(self) -> None:
        self._refused: list[str] = []

    def note(self, sent: Outgoing) -> None:
        """One has its fate."""
        if sent.fate is not Fate.ACCEPTED:
            self._refused.append(sent.why)

    def check(self) -> None:
        """Raises Unavailable where one was not taken."""
        if self._refused:
            first = self._refused[0]
            raise Unavailable(f"RabbitMQ did not take {len(self._refused):,} messages: {first}")


async def publish(settings: Settings, items: Iterable[Item]) -> float:
    """Publish all of these as fast as the broker confirms them; how many seconds it took. Raises Unavailable."""
    fates = Fates()
    async with Sender(settings.broker, name="bench publisher", on_fate=fates.note) as sender:
        begin = time.monotonic()
        for item in items:
            await sender.send(outgoing(item))
        await sender.finish()
        seconds = time.monotonic() - begin
    fates.check()
    return seconds


def outgoing(item: Item) -> Outgoing:
    """An event as agents publish it."""
    return Outgoing(topology.MESSAGES, item.type, item.body, CONTENT_TYPE)


async def alone(settings: Settings, items: list[Item], processes: int) -> BrokerAlone:
    """Publish these and consume them again, over as many connections as there will be workers. Raises Unavailable."""
    publishing = await publish(settings, items)
    queues = {topology.queue_name(family): family for family in {item.family for item in items}}
    async with contextlib.AsyncExitStack() as closing:
        subscriptions = []
        for _ in range(processes):
            connection = await connect(settings.broker, name="bench consumer")
            closing.push_async_callback(connection.close)
            budget = ByteBudget(settings.memory_budget)
            for queue, family in queues.items():
                subscriptions.append((connection, {queue: family}, budget))
        seconds = await _consume(settings, subscriptions, len(items))
    return BrokerAlone(len(items), len(items) / publishing, len(items) / seconds)


_Wanted = list[tuple[BrokerConnection, dict[str, str], ByteBudget]]


async def _consume(settings: Settings, wanted: _Wanted, count: int) -> float:
    """Take and acknowledge so many messages; the seconds until the broker has dealt with the last acknowledgement."""
    left = _Left(count)
    begin = time.monotonic()
    opened = [await Subscription.open(*each, settings.prefetch) for each in wanted]
    taking = [asyncio.create_task(_take(subscription, left)) for subscription in opened]
    try:
        await left.none()
        # A cancelled consumer is answered on its channel after the acknowledgements before it.
        await asyncio.gather(*(subscription.stop() for subscription in opened))
        return time.monotonic() - begin
    finally:
        for task in taking:
            task.cancel()
        await asyncio.gather(*taking, return_exceptions=True)


class _Left:
    """How many messages have yet to come."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._changed = asyncio.Event()

    def less(self, taken: int) -> None:
        self.count -= taken
        self._changed.set()

    async def none(self) -> None:
        """Wait for the last. Raises Unavailable where nothing comes for a minute."""
        while self.count > 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._changed.wait()
            except TimeoutError:
                raise Unavailable(
                    f"RabbitMQ holds {self.count:,} messages and has delivered none for {_PATIENCE:.0f} s"
                ) from None


async def _take(subscription: Subscription, left: _Left) -> None:
    while await subscription.arrival():
        batch = list(subscription.waiting)
        subscription.waiting.clear()
        subscription.acknowledge(batch)
        left.less(len(batch))
