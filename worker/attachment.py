"""Keeps every family attached to its queues, over any number of connections to RabbitMQ.

Promises: a lost connection, a closed channel or a cancelled consumer is noticed and begun anew, with jittered back-off
so that many workers do not storm a broker; and `absent` says the truth about who is attached.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping

import structlog

from worker import telemetry
from worker.broker import topology
from worker.broker.budget import ByteBudget
from worker.broker.connection import BrokerConnection, connect
from worker.broker.consumer import Subscription
from worker.errors import Misconfigured, Unavailable
from worker.patience import rest
from worker.pipeline import Pipeline
from worker.settings import Settings

log = structlog.get_logger()


class Attachment:
    """The consuming side of one worker process. `run` ends once `stop` is set and what is in hand is settled."""

    def __init__(
        self,
        settings: Settings,
        pipelines: Mapping[str, Pipeline],
        known_families: Iterable[str],
        stop: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._pipelines = pipelines
        self._known = tuple(known_families)
        self._stop = stop
        self._budget = ByteBudget(settings.memory_budget)
        self._subscriptions: dict[str, Subscription] = {}

    @property
    def absent(self) -> list[str]:
        """The families that are not attached to their queues."""
        return sorted(self._pipelines.keys() - self._subscriptions.keys())

    @property
    def in_hand(self) -> int:
        """How many deliveries are neither acknowledged nor put back."""
        return sum(subscription.in_hand for subscription in self._subscriptions.values())

    def queues(self) -> list[str]:
        """Every queue that is consumed."""
        return [queue for family in self._pipelines for queue in self._queues(family)]

    async def stop_intake(self) -> None:
        """Take no more from the queues."""
        await asyncio.gather(*(s.stop() for s in list(self._subscriptions.values())))

    async def run(self, connection: BrokerConnection) -> None:
        """Serve one connection after another."""
        while not self._stop.is_set():
            try:
                async with asyncio.TaskGroup() as tasks:
                    for family, pipeline in self._pipelines.items():
                        tasks.create_task(self._serve(connection, family, pipeline))
            finally:
                await connection.close()
            if self._stop.is_set():
                return
            log.warning("connection lost")
            telemetry.reconnections.inc()
            again = await self._reconnect()
            if again is None:
                return
            connection = again

    async def _serve(self, connection: BrokerConnection, family: str, pipeline: Pipeline) -> None:
        """Keep one family attached as long as the connection lasts."""
        pause = 0.05
        queues = self._queues(family)
        while not (self._stop.is_set() or connection.lost.is_set()):
            began = time.monotonic()
            try:
                subscription = await Subscription.open(
                    connection, queues, self._budget, self._settings.prefetch
                )
            except Unavailable as error:
                log.error("not attached", family=family, error=str(error))
                await self._sleep(rest(pause, began))
                pause = min(2 * pause, self._settings.retry_longest)
                continue
            pause = 0.05
            self._subscriptions[family] = subscription
            telemetry.attached.labels(family).set(1)
            if self._stop.is_set():
                await subscription.stop()
            try:
                await pipeline.run(subscription)
            finally:
                telemetry.attached.labels(family).set(0)
                telemetry.in_hand.labels(family).set(0)
                self._subscriptions.pop(family, None)
                await subscription.close()

    def _queues(self, family: str) -> Mapping[str, str]:
        """Queue to family of what one family consumes."""
        if family == topology.DEAD_LETTER_FAMILY:
            all_families = (*self._known, topology.UNROUTED_FAMILY)
            return {topology.dead_letter_queue_name(name): name for name in all_families}
        return {topology.queue_name(family): family}

    async def _reconnect(self) -> BrokerConnection | None:
        """A new connection, with jittered back-off so that many workers do not storm a broker; None when stopping."""
        pause, began = 0.1, time.monotonic()
        while not self._stop.is_set():
            await self._sleep(rest(pause, began))
            began = time.monotonic()
            try:
                return await connect(self._settings.broker, name=self._settings.name)
            except (Unavailable, Misconfigured) as error:
                # It worked at start: a refusal now is a broker that is still starting, or being changed.
                log.warning("reconnecting", error=str(error))
                pause = min(2 * pause, self._settings.retry_longest)
        return None

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
