"""Empties the outbox: hands its entries to the announcer and deletes them once the broker has every event of them.

On a connection of its own, since a broker alarm that blocks publishing must not block draining. At once when handed
over in memory, and by a sweep when a worker died in between, or the broker refused. Promises at least once: a row is
deleted only after the broker took every event in it; and that a row which is refused keeps no other waiting. Rows are
deleted beside the publishing: nobody's confirmation waits for the commit that deletes another's.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import structlog

from worker import telemetry
from worker.announcer import Announcer
from worker.broker.connection import connect
from worker.broker.publisher import ConfirmedPublisher
from worker.errors import Misconfigured, Unavailable
from worker.patience import first_of, rest, until_one_fails
from worker.store import outbox
from worker.store.database import Database
from worker.store.outbox import OutboxEntry

log = structlog.get_logger()

_MOST_PENDING_BYTES = 8 * 1024 * 1024
"""Of payload as JSON, as are the others; what it becomes in memory and on the wire is some times as much."""
_AT_ONCE_ROWS = 64
_SWEEP_ROWS = 200
_AT_ONCE_BYTES = 4 * 1024 * 1024
_OLDEST_REFUSED = 60.0
"""Seconds after which a connection on which confirmations are refused is replaced."""


class _RefusedForLongError(Unavailable):
    """The broker goes on refusing confirmations on this connection."""


class Relay:
    """The outbox's publisher. `submit` never waits; `run` works until it is cancelled."""

    def __init__(
        self,
        database: Database,
        broker_url: str,
        *,
        worker: str,
        sweep_after: float = 30,
        retry_longest: float = 3,
    ) -> None:
        self._database = database
        self._broker_url = broker_url
        self._worker = worker
        self._announcer = Announcer(worker)
        self._sweep_after = sweep_after
        self._retry_longest = retry_longest
        self._pending: deque[OutboxEntry] = deque()
        self._pending_bytes = 0
        self._published: list[UUID] = []
        self._unfinished = 0
        self._opened = 0.0
        self._refused = 0
        self._swept_to: tuple[datetime, UUID] | None = None
        self._wake = asyncio.Event()
        self._deletable = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(self, entry: OutboxEntry) -> None:
        """Publish this entry as soon as may be. What no longer fits in memory is left to the sweep."""
        self._pending.append(entry)
        self._pending_bytes += entry.size
        self._unfinished += 1
        self._idle.clear()
        while self._pending_bytes > _MOST_PENDING_BYTES and len(self._pending) > 1:
            self._pending_bytes -= self._pending.popleft().size
            self._finish(1)
        self._wake.set()

    async def idle(self) -> None:
        """Wait until everything that was handed over is published and its rows are deleted."""
        await self._idle.wait()

    async def run(self) -> None:
        """Connect, publish and sweep, again and again; and delete what is published, whatever becomes of a connection."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._connect_and_publish())
            tasks.create_task(self._delete_published())

    async def _connect_and_publish(self) -> None:
        pause = 0.05
        while True:
            began = time.monotonic()
            try:
                connection = await connect(self._broker_url, name=f"{self._worker} relay")
            except (Unavailable, Misconfigured) as error:
                # It worked at start: a refusal now is a broker that is still starting, or being changed.
                log.warning("relay waits", error=str(error))
                await asyncio.sleep(rest(pause, began))
                pause = min(2 * pause, self._retry_longest)
                continue
            pause = 0.05
            try:
                self._opened = time.monotonic()
                publisher = await ConfirmedPublisher.open(connection)
                await until_one_fails(
                    self._publish_submitted(publisher), self._sweep_regularly(publisher)
                )
            except Unavailable as error:
                log.warning("relay begins anew", error=str(error))
            finally:
                await connection.close()
            await asyncio.sleep(random.uniform(0.02, 0.1))  # noqa: S311 (jitter)

    async def _publish_submitted(self, publisher: ConfirmedPublisher) -> None:
        while True:
            while not self._pending:
                self._wake.clear()
                await first_of(self._wake, publisher.ended)
                if publisher.ended.is_set():
                    raise Unavailable("the relay's channel was closed")
            entries = self._next()
            try:
                taken = await self._announcer.publish(publisher, entries)
            except BaseException:
                self._pending.extendleft(reversed(entries))
                raise
            self._pending_bytes -= sum(entry.size for entry in entries)
            if taken:
                self._published += [entry.id for entry in taken]
                self._deletable.set()
            # What was refused is left to the sweep: at once it would only be refused again.
            self._finish(len(entries) - len(taken))

    def _next(self) -> list[OutboxEntry]:
        """The next entries: one, and as many more as may be published at once."""
        entries = [self._pending.popleft()]
        size = entries[0].size
        while self._pending and len(entries) < _AT_ONCE_ROWS:
            size += self._pending[0].size
            if size > _AT_ONCE_BYTES:
                break
            entries.append(self._pending.popleft())
        return entries

    async def _delete_published(self) -> None:
        while True:
            await self._deletable.wait()
            self._deletable.clear()
            ids, self._published = self._published, []
            await self._delete_patiently(ids)
            self._finish(len(ids))

    def _finish(self, rows: int) -> None:
        """Nothing is left to do here for so many rows: deleted, or left to the sweep."""
        self._unfinished -= rows
        if not self._unfinished:
            self._idle.set()

    async def _delete_patiently(self, ids: Sequence[UUID]) -> None:
        """Delete published rows, however long the database is away: publishing them again would be noise."""
        pause = 0.05
        while True:
            began = time.monotonic()
            try:
                async with self._database.transaction() as connection:
                    await outbox.delete(connection, ids)
            except Unavailable as error:
                log.warning("relay waits", error=str(error))
                await asyncio.sleep(rest(pause, began))
                pause = min(2 * pause, self._retry_longest)
            else:
                return

    async def _sweep_regularly(self, publisher: ConfirmedPublisher) -> None:
        while True:
            try:
                await self._sweep(publisher)
                self._renew_if_refused()
            except Unavailable as error:
                if publisher.ended.is_set() or isinstance(error, _RefusedForLongError):
                    raise
                log.warning("sweep waits", error=str(error))
            await asyncio.sleep(self._sweep_after * random.uniform(0.2, 0.4))  # noqa: S311 (jitter)

    async def _sweep(self, publisher: ConfirmedPublisher) -> None:
        """Publish portions until there are no more, or until something was refused and so many rows were tried."""
        self._refused = tried = 0
        more = True
        while more and (not self._refused or tried < _SWEEP_ROWS):
            rows, more = await self.sweep_once(publisher)
            tried += rows

    def _renew_if_refused(self) -> None:
        """End an old connection over which the last sweep was refused something.

        A channel that first met a quorum queue while it had no leader is refused for ever (RabbitMQ 3.10), a new one is
        not; from here that looks like a listener's full queue.
        """
        if self._refused and time.monotonic() - self._opened > _OLDEST_REFUSED:
            self._refused = 0
            raise _RefusedForLongError("confirmations are refused: trying on a new channel")

    async def sweep_once(self, publisher: ConfirmedPublisher) -> tuple[int, bool]:
        """Publish a portion of the rows that nobody published for a while: how many were tried, and whether there are more.

        One sweeper works at a time. What the broker refuses stays, and the next portion begins behind it: a full queue
        of one listener keeps no other's confirmations waiting, however many rows it refuses.
        Not while the socket is full: under a broker alarm every sweep would put the same rows into it once more.
        """
        await publisher.drain()
        async with self._database.transaction() as connection:
            entries, more = await outbox.claim(
                connection, self._sweep_after, _SWEEP_ROWS, _AT_ONCE_BYTES, self._swept_to
            )
            taken: list[OutboxEntry] = []
            if entries:
                taken = await self._publish_soon(publisher, entries)
                await outbox.delete(connection, [entry.id for entry in taken])
        telemetry.outbox_swept.inc(len(taken))
        self._refused += len(entries) - len(taken)
        self._swept_to = (entries[-1].committed_at, entries[-1].id) if more else None
        return len(entries), more

    async def _publish_soon(
        self, publisher: ConfirmedPublisher, entries: Sequence[OutboxEntry]
    ) -> list[OutboxEntry]:
        """A broker that blocks publishing must not hold a transaction open for hours."""
        try:
            async with asyncio.timeout(self._sweep_after):
                return await self._announcer.publish(publisher, entries)
        except TimeoutError:
            text = f"RabbitMQ took no confirmations for {self._sweep_after:g} s"
            raise Unavailable(text) from None
