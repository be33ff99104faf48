"""The path of a batch: take, decode, persist, settle, hand over for confirmation.

Promises: nothing is acknowledged before its transaction has committed; a fault of the infrastructure keeps a batch
waiting, unacknowledged; a batch whose channel is gone is left to redelivery.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

import structlog

from worker import telemetry
from worker.attempts import Attempts
from worker.batch import Batcher, Solitude
from worker.broker.consumer import Subscription
from worker.crash_points import reached
from worker.decode import reject
from worker.errors import Unavailable
from worker.message import Decoded, Delivery, Rejected
from worker.patience import rest
from worker.pause import Pause
from worker.store.database import Database
from worker.store.outbox import OutboxEntry
from worker.store.persist import Committed, Persister
from worker.store.suspects import MOST_ATTEMPTS

log = structlog.get_logger()

_TURN = 0.02
"""Seconds of decoding after which the event loop gets its turn."""

_MOST_LOGGED = 100
"""Rejections of one batch that have a line of their own in the log; all of them are dead letters and counted."""

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
        self._attempts = Attempts(database)
        self._confirmer = confirmer
        self._batcher = batcher
        self._pause = pause
        self._solitude = solitude
        self._slots = asyncio.Semaphore(transactions)
        self._retry_longest = retry_longest
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
            await self._attempts.record_late_ends()
        finally:
            self._slots.release()

    async def _handle(self, subscription: Subscription, batch: list[Delivery]) -> Committed | None:
        """Decode and commit; None where the batch has to be released."""
        decoded = await self._decode_what_fits(subscription, batch)
        reached("after_decode")
        return await self._persist(subscription, batch, decoded)

    async def _decode_what_fits(
        self, subscription: Subscription, batch: list[Delivery]
    ) -> list[Decoded]:
        """Decode as many of these as one transaction may hold; the others leave the batch and wait for the next one.

        The loop goes on meanwhile, or heartbeats would stop: small bodies are decoded between its turns, others beside it.
        """
        decoded: list[Decoded] = []
        unpacked = 0
        turn = time.monotonic()
        for at, delivery in enumerate(batch):
            if self._batcher.is_full(len(decoded), unpacked):
                subscription.take_back(batch[at:])
                del batch[at:]
                break
            if delivery.is_small:
                decoded += self._decode(delivery)
                if time.monotonic() - turn > _TURN:
                    await asyncio.sleep(0)
                    turn = time.monotonic()
            else:
                decoded += await asyncio.to_thread(self._decode, delivery)
            unpacked += delivery.unpacked
        self._batcher.learn(len(batch), len(decoded))
        return decoded

    async def _handle_alone(
        self, subscription: Subscription, batch: list[Delivery]
    ) -> Committed | None:
        """Handle one message that may have killed a worker, with its attempt on record; give up on the fourth."""
        suspect = batch[0]
        telemetry.suspects.labels(self.family).inc()
        patiently = partial(self._patiently, subscription)
        stopping = subscription.ended_or_stopping
        number = await self._attempts.begin(suspect, patiently, stopping)
        if number is None:
            return None
        async with self._attempts.ended_by_a_stop(suspect):
            if number > MOST_ATTEMPTS:
                text = f"ended the worker {number - 1} times while it was handled alone"
                refused = [reject(suspect, "delivery_limit", [("", text)])]
                committed = await self._persist(subscription, batch, refused)
            else:
                committed = await self._handle(subscription, batch)
        await self._attempts.end(suspect, patiently)
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
            began = time.monotonic()
            try:
                return await step()
            except Unavailable as error:
                seconds = rest(pause, began)
                telemetry.transactions.labels(self.family, "unavailable").inc()
                self._log.warning("waiting", error=str(error), seconds=round(seconds, 2))
                for delivery in batch:
                    delivery.retried = delivery.retried or error.ambiguous
            if subscription.ended_or_stopping.is_set():
                return None
            try:
                async with asyncio.timeout(seconds):
                    await subscription.ended_or_stopping.wait()
            except TimeoutError:
                pause = min(2 * pause, self._retry_longest)

    def _take_note(self, subscription: Subscription, committed: Committed) -> None:
        """Count and log what became of a batch, and pause where most of it was refused."""
        counts: dict[str, int] = {}
        rejected = [one for one in committed.outcomes if isinstance(one, Rejected)]
        for outcome in committed.outcomes:
            name: str = "rejected" if isinstance(outcome, Rejected) else outcome.outcome
            counts[name] = counts.get(name, 0) + 1
        for refused in rejected:
            telemetry.rejected.labels(self.family, refused.reason).inc()
        for refused in rejected[:_MOST_LOGGED]:
            self._log.warning(
                "rejected",
                reason=refused.reason,
                type=refused.type,
                id=refused.id,
                source=refused.source,
            )
        if len(rejected) > _MOST_LOGGED:
            self._log.warning("more rejected", count=len(rejected) - _MOST_LOGGED)
        for name, count in counts.items():
            telemetry.messages.labels(self.family, name).inc(count)
        telemetry.in_hand.labels(self.family).set(subscription.in_hand)
        paused = self._pause.record(committed.outcomes)
        telemetry.paused.labels(self.family).set(paused)
        if paused:
            self._log.error("paused", why="most messages are refused, from several sources")
