"""Latency at a steady rate: from the moment a message was to be published to its confirmation in the publisher's hand.

The moment counts at which the schedule wanted the message out, not the one at which it went: a publisher that falls
behind would hide what its users feel. Publisher and listener are this process; confirmations come through a queue bound
to the exchange of confirmations, alike for every contender.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from uuid import uuid4

import orjson

from benchmarks.contenders import Contender
from benchmarks.events import Maker
from benchmarks.figures import percentile
from benchmarks.load import Load
from benchmarks.measure import started
from benchmarks.services import Place, Services
from contracts.confirmation import EXCHANGE
from contracts.envelope import CONTENT_TYPE
from worker.broker import topology
from worker.broker.budget import ByteBudget
from worker.broker.connection import BrokerConnection, connect
from worker.broker.consumer import Subscription
from worker.broker.publisher import ConfirmedPublisher

_WARM = 200
_PATIENCE = 60.0
_FEWEST = 2_000  # messages: p99 of fewer is the luck of a few, and one in a thousand a single one


@dataclass
class Latency:
    """What was found at one rate: seconds that half, 99 and 99.9 % of the messages took at most."""

    contender: str
    rate: float
    of_capacity: bool
    messages: int
    p50: float
    p99: float
    p999: float
    taken: float
    """Messages that were confirmed a second while others were published beside them."""

    @property
    def load(self) -> str:
        """The rate as a target names it, such as `100/s`; what depends on a contender's capacity is nobody else's."""
        return f"{self.rate:,.0f}/s" + (" of its own" if self.of_capacity else "")


def typical(looks: Sequence[Latency]) -> Latency:
    """The medians of several looks at the same contender and rate."""
    return replace(
        looks[0],
        messages=sum(look.messages for look in looks),
        p50=median(look.p50 for look in looks),
        p99=median(look.p99 for look in looks),
        p999=median(look.p999 for look in looks),
        taken=median(look.taken for look in looks),
    )


async def latency(
    services: Services,
    contender: Contender,
    rate: float,
    seconds: float,
    *,
    of_capacity: bool = False,
) -> Latency:
    """Publish logs at this rate for so long, and hear every confirmation. Raises RuntimeError where some never come."""
    count = max(_FEWEST, round(rate * seconds))
    load = Load("logs", list(Maker().logs(count + _WARM)))
    async with services.place() as place, started(contender.in_service(), place, load):
        waits, taken = await _confirmed(place, load, rate)
    return Latency(
        contender.name,
        rate,
        of_capacity,
        len(waits),
        percentile(waits, 0.5),
        percentile(waits, 0.99),
        percentile(waits, 0.999),
        taken,
    )


async def _confirmed(place: Place, load: Load, rate: float) -> tuple[list[float], float]:
    """How long each message took, and how many were confirmed a second."""
    connection = await connect(place.amqp_url, name="bench latency")
    try:
        heard = await _listen(connection)
        publisher = await ConfirmedPublisher.open(connection)
        listening = asyncio.create_task(heard.run())
        try:
            await _publish(publisher, load, 0, _WARM, _WARM, heard)
            await heard.all(_WARM)
            await _publish(publisher, load, _WARM, len(load), rate, heard)
            published = time.perf_counter()
            await heard.all(len(load))
        finally:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening
    finally:
        await connection.close()
    measured = [event["id"] for event in load.events[_WARM:]]
    waits = [heard.at[identity] - heard.due[identity] for identity in measured]
    meanwhile = sum(heard.at[identity] <= published for identity in measured)
    if not meanwhile:
        raise RuntimeError("nothing was confirmed while others were published beside it")
    return waits, meanwhile / (published - heard.due[measured[0]])


async def _publish(
    publisher: ConfirmedPublisher, load: Load, first: int, end: int, rate: float, heard: "_Heard"
) -> None:
    """Publish on schedule, whatever comes back and when."""
    begin = time.perf_counter()
    for number in range(first, end):
        due = begin + (number - first) / rate
        ahead = due - time.perf_counter()
        if ahead > 0 or number % 20 == 0:  # one that is late has to let its listener in
            await asyncio.sleep(max(ahead, 0))
        heard.due[load.events[number]["id"]] = due
        body = load.bodies[number]
        publisher.publish(
            topology.MESSAGES, body.routing_key, body.content, content_type=CONTENT_TYPE
        )
        if number % 20 == 0:
            await publisher.drain()
    await publisher.drain()


class _Heard:
    """When each event was to be published, and when its confirmation came."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._wanted = 0
        self._enough = asyncio.Event()
        self.due: dict[str, float] = {}
        self.at: dict[str, float] = {}

    async def run(self) -> None:
        """Take confirmations as they come."""
        while await self._subscription.arrival():
            now = time.perf_counter()
            batch = list(self._subscription.waiting)
            self._subscription.waiting.clear()
            for delivery in batch:
                confirmed: Mapping[str, list[dict[str, str]]] = orjson.loads(delivery.body)["data"]
                for item in confirmed["items"]:
                    self.at.setdefault(item["id"], now)
            self._subscription.acknowledge(batch)
            if len(self.at) >= self._wanted:
                self._enough.set()

    async def all(self, count: int) -> None:
        """Wait until so many events are confirmed."""
        self._wanted = count
        if len(self.at) < count:
            self._enough.clear()
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._enough.wait()
            except TimeoutError:
                raise RuntimeError(
                    f"{count - len(self.at)} of {count} were never confirmed"
                ) from None


async def _listen(connection: BrokerConnection) -> _Heard:
    channel = await connection.channel()
    queue = f"bench.latency.{uuid4().hex}"
    await channel.queue_declare(queue, exclusive=True, durable=False)
    await channel.queue_bind(queue, EXCHANGE, routing_key="#")
    budget = ByteBudget(256 * 1024 * 1024)
    return _Heard(await Subscription.open(connection, {queue: "bench"}, budget, 2_000))
