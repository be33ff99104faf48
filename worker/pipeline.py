"""The path of a batch: take, decode, persist, settle, hand over for confirmation.

Promises: nothing is acknowledged before its transaction has committed; a fault of the infrastructure keeps a batch
waiting, unacknowledged; a batch whose channel is gone is left to redelivery.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import structlog

from worker import telemetry
from worker.batch import Batcher, Solitude
from worker.broker.consumer import Subscription
from worker.crash_points import reached
from worker.decode import reject
from worker.errors import Misconfigured, Unavailable, WorkerError
from worker.message import Decoded, Delivery, Rejected
from worker.pause import Pause
from worker.store import suspects
from worker.store.database import Database
from worker.store.outbox import OutboxEntry
from worker.store.persist import Committed, Persister

log = structlog.get_logger()

T = TypeVar("T")
Decode = Callable[[Delivery], Sequence[Decoded]]


class Confirmer(Protocol):
    """Takes what has to be confirmed, after its commit."""

    def submit(self, entry: OutboxEntry) -> None:
        """Confirm this as soon as may be; its row in the outbox makes it certain."""


class Pipeline:
    """One family's pipeline; `run` serves one subscription after another."""

    def __init__(
        self,
        family: str,
        decode: Decode,
        persister: Persister,
        database: Database,
        confirmer: Confirmer,
        batcher: Batcher,
        pause: Pause,
        solitude: Solitude,
        *,
        transactions: int = 2,
        retry_longest: float = 3,
    ) -> None:
        self.family = family
        self._decode = decode
        self._persister = persister
        self._database = database
        self._confirmer = confirmer
        self._batcher = batcher
        self._pause = pause
        self._solitude = solitude
        self._slots = asyncio.Semaphore(transactions)
        self._retry_longest = retry_longest
        self._ended: list[bytes] = []
        self._log = log.bind(family=family)

    async def run(self, subscription: Subscription) -> None:
        """Work until the subscription ends, or is stopped and empty. Raises Misconfigured."""
        async with asyncio.TaskGroup() as batches:
            while True:
                await self._slots.acquire()
                try:
                    await self._pause.over(subscription.ended_or_stopping)
                    more = not self._pause.active and await subscription.arrival()
                except BaseException:
                    self._slots.release()
                    raise
                if not more:
                    self._slots.release()
                    return
                batch = self._batcher.take(subscription.waiting)
                work = batches.create_task(self._one_batch(subscription, batch))
                if self._pause.probing or self._batcher.is_suspect(batch):
                    await asyncio.wait([work])

    async def _one_batch(self, subscription: Subscription, batch: list[Delivery]) -> None:
        try:
            if self._batcher.is_suspect(batch):
                async with self._solitude.alone():
                    committed = await self._handle_alone(subscription, batch)
            else:
                async with self._solitude.shared(batch):
                    committed = await self._handle(subscription, batch)
            if committed is None:
                subscription.release(batch)
                return
            reached("before_acknowledge")
            subscription.acknowledge(batch)
            self._confirmer.submit(committed.entry)
            self._batcher.succeeded(batch)
            self._take_note(subscription, committed)
        finally:
            self._slots.release()

    async def _handle(self, subscription: Subscription, batch: list[Delivery]) -> Committed | None:
        """Decode and commit; None where the batch has to be released."""
        decoded = [item for delivery in batch for item in self._decode(delivery)]
        reached("after_decode")
        return await self._persist(subscription, batch, decoded)

    async def _handle_alone(
        self, subscription: Subscription, batch: list[Delivery]
    ) -> Committed | None:
        """Handle one message that may have killed a worker, with its attempt on record; give up on the fourth."""
        suspect = batch[0]
        telemetry.suspects.labels(self.family).inc()
        attempts = await self._patiently(
            subscription, lambda: suspects.begin(self._database, suspect, self._ended)
        )
        if attempts is None:
            return None
        self._ended.clear()
        try:
            if attempts > suspects.MOST_ATTEMPTS:
                text = f"ended the worker {attempts - 1} times while it was handled alone"
                refused = [reject(suspect, "delivery_limit", [("", text)])]
                committed = await self._persist(subscription, batch, refused)
            else:
                committed = await self._handle(subscription, batch)
        except (Misconfigured, asyncio.CancelledError):
            # The worker stops, and not because of this message: a restart loop must not make it a dead letter.
            with contextlib.suppress(WorkerError):
                await suspects.end(self._database, suspect)
            raise
        if not await self._patiently(subscription, lambda: suspects.end(self._database, suspect)):
            # Both services are away: an attempt that ended so must never count against the message.
            self._ended.append(suspects.digest(suspect))
        return committed

    async def _persist(
        self, subscription: Subscription, batch: list[Delivery], decoded: Sequence[Decoded]
    ) -> Committed | None:
        started = time.perf_counter()
        committed = await self._patiently(
            subscription, lambda: self._persister.persist(decoded), batch
        )
        if committed is not None:
            telemetry.transactions.labels(self.family, "committed").inc()
            telemetry.batch_messages.labels(self.family).observe(len(decoded))
            telemetry.transaction_seconds.labels(self.family).observe(time.perf_counter() - started)
        return committed

    async def _patiently(
        self,
        subscription: Subscription,
        step: Callable[[], Awaitable[T]],
        batch: Sequence[Delivery] = (),
    ) -> T | None:
        """Try until it works; None once the subscription has ended or is stopping and it still does not."""
        pause = 0.05
        while True:
            try:
                return await step()
            except Unavailable as error:
                telemetry.transactions.labels(self.family, "unavailable").inc()
                self._log.warning("waiting", error=str(error), seconds=round(pause, 2))
                for delivery in batch:
                    delivery.retried = delivery.retried or error.ambiguous
            if subscription.ended_or_stopping.is_set():
                return None
            try:
                async with asyncio.timeout(pause * random.uniform(0.5, 1)):  # noqa: S311 (jitter)
                    await subscription.ended_or_stopping.wait()
            except TimeoutError:
                pause = min(2 * pause, self._retry_longest)

    def _take_note(self, subscription: Subscription, committed: Committed) -> None:
        """Count and log what became of a batch, and pause where most of it was refused."""
        counts: dict[str, int] = {}
        for outcome in committed.outcomes:
            if isinstance(outcome, Rejected):
                telemetry.rejected.labels(self.family, outcome.reason).inc()
                counts["rejected"] = counts.get("rejected", 0) + 1
                self._log.warning(
                    "rejected",
                    reason=outcome.reason,
                    type=outcome.type,
                    id=outcome.id,
                    source=outcome.source,
                )
            else:
                counts[outcome.outcome] = counts.get(outcome.outcome, 0) + 1
        for name, count in counts.items():
            telemetry.messages.labels(self.family, name).inc(count)
        telemetry.in_hand.labels(self.family).set(subscription.in_hand)
        paused = self._pause.record(committed.outcomes)
        telemetry.paused.labels(self.family).set(paused)
        if paused:
            self._log.error("paused", why="most messages are refused, from several sources")
