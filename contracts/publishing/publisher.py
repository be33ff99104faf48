"""Publishing events and waiting for their writes, over any link to the broker.

Owns what `contracts.client.Publisher` promises, but for AMQP itself. Promises: `publish` returns when the broker has
the event, `persisted` when a reader of the database can see it; what is sent again is stored once; what an event
holds is never logged.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Literal, Self
from uuid import UUID

from contracts.confirmation import ErrorDetail
from contracts.envelope import Event, EventData
from contracts.limits import MAX_BATCH_EVENTS
from contracts.publishing.bodies import checked_body
from contracts.publishing.dispatch import Dispatcher, Link
from contracts.publishing.errors import (
    InvalidEvent,
    NotConfirmed,
    NotConnected,
    PublisherClosed,
    PublishingError,
    Rejected,
)
from contracts.publishing.ledger import Answer, EventKey, Ledger, Pending
from contracts.publishing.numbering import Numbering, Published
from contracts.publishing.parcels import MAX_PARCEL_BYTES, Batcher, Parcel
from contracts.publishing.replies import settle_reply
from contracts.publishing.task_events import TaskEvents
from contracts.publishing.waiting import Wait, again, raise_if, too_late

OnReply = Callable[[bytes, str], None]
"""Takes the body and the correlation id of a reply."""

_log = logging.getLogger("contracts.client")


class EventPublisher:
    """Publishes events, and waits for their writes, over one connection that mends itself.

    `source` and `tenant` are those of events made by `event` and `task`. With `batch` the events of one family that
    come within `linger` seconds travel as one message, at most `max_batch_events` and `max_batch_bytes` of them: many
    times faster where many calls run at the same time. With `replies=False` workers are not asked for answers to
    `publish`, which spares them work where `persisted` is rarely called. `validate=False` leaves checking to the
    worker. Every call ends within `timeout` seconds (`math.inf` for no limit) unless it is given its own.
    `max_unanswered` and `max_unanswered_bytes` bound what is under way: calls past them wait for room.
    Events without a number are numbered for the loss ledger (`contracts.publishing.numbering`).
    """

    def __init__(
        self,
        open_link: Callable[[OnReply], Awaitable[Link]],
        *,
        source: str | None = None,
        tenant: str = "default",
        batch: bool = False,
        linger: float = 0.005,
        max_batch_events: int = 500,
        max_batch_bytes: int = 500_000,
        replies: bool = True,
        validate: bool = True,
        timeout: float = 30.0,
        close_timeout: float = 10.0,
        max_unanswered: int = 10_000,
        max_unanswered_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        if not 1 <= max_batch_events <= MAX_BATCH_EVENTS:
            raise ValueError(f"max_batch_events must be 1 to {MAX_BATCH_EVENTS}")
        if not 1 <= max_batch_bytes <= MAX_PARCEL_BYTES:
            raise ValueError(f"max_batch_bytes must be 1 to {MAX_PARCEL_BYTES}")
        self._open_link = open_link
        self._source = source
        self._tenant = tenant
        self._batcher = Batcher(
            self._send, linger if batch else None, max_batch_events, max_batch_bytes
        )
        self._replies = replies
        self._validate = validate
        self._timeout = timeout
        self._close_timeout = close_timeout
        self._ledger = Ledger(max_unanswered, max_unanswered_bytes)
        self._numbering = Numbering(max_unanswered)
        self._dispatcher: Dispatcher | None = None
        self._closing = False

    async def __aenter__(self) -> Self:
        dispatcher = Dispatcher(lambda: self._open_link(self._on_reply), self._ledger, self._resend)
        try:
            async with asyncio.timeout(self._timeout):
                await dispatcher.connected()
        except BaseException as error:
            await dispatcher.close()
            if isinstance(error, TimeoutError):
                raise dispatcher.trouble or NotConnected("the broker did not answer") from None
            raise
        self._dispatcher = dispatcher
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.close()
        except NotConfirmed as lost:
            if error is None:
                raise
            _log.warning("%s", lost)

    async def close(self) -> None:
        """Send what waits, wait for the broker and for pending `persisted` calls, then disconnect.

        Raises NotConfirmed where the broker did not confirm everything within `close_timeout`.
        """
        dispatcher = self._dispatcher
        if dispatcher is None or self._closing:
            return
        self._closing = True
        self._batcher.flush_all()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._close_timeout):
                    await self._ledger.quiet()
        finally:
            text = "the publisher was closed before an answer came"
            lost = self._ledger.abandon(NotConfirmed(text))
            self._dispatcher = None
            await dispatcher.close()
        if lost:
            raise NotConfirmed(
                f"the broker did not confirm {lost} events before the publisher was closed; "
                "it may have them: publish them again, a repetition is stored once"
            )

    @property
    def epoch(self) -> UUID:
        """Under which this publisher numbers its events for the loss ledger; a new one for each publisher."""
        return self._numbering.epoch

    @property
    def last_sequence(self) -> int:
        """The last number that an event of this publisher's own source and tenant has used; 0 before the first."""
        return self._numbering.last(self._tenant, self._need_source())

    @property
    def published(self) -> list[Published]:
        """How far each source has come that it published for: what `worker reconcile --published` can be told."""
        return self._numbering.published()

    def event(self, data: EventData, **attributes: Any) -> Event:
        """The data in an envelope with this publisher's source and tenant."""
        return data.event(**{"source": self._need_source(), "tenant": self._tenant, **attributes})

    def task(self, task_id: UUID, *, attempt: int = 1) -> TaskEvents:
        """Makes the events of one task, each stamped with its attempt."""
        source = self._need_source()
        return TaskEvents(task_id, source=source, tenant=self._tenant, attempt=attempt)

    async def publish(self, event: Event, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 (a call's own limit)
        """Hand an event to the broker; returns when the broker has it on disk.

        Raises InvalidEvent, NotAccepted, Unroutable, NotConnected or NotConfirmed.
        """
        body = checked_body(event, validate=self._validate)
        wait = Wait(self._timeout if timeout is None else timeout)
        pending = await self._submit(event, body, wait, asked=self._replies)
        if not await wait.for_(pending.accepted):
            raise self._late(event, wait.limit)
        raise_if(pending.accepted.result())

    async def persisted(
        self,
        event: Event,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 (as above)
    ) -> Literal["persisted", "duplicate"]:
        """Wait until the database has an event, publishing it where that is not done yet.

        Raises Rejected, with the reason and every error, where it can never be stored; Unanswered where no worker
        said in time what became of it; and what `publish` raises.
        """
        body = checked_body(event, validate=self._validate)
        wait = Wait(self._timeout if timeout is None else timeout)
        answer = self._ledger.take_answer(_key(event), body) or await self._answer(
            event, body, wait
        )
        if answer.outcome == "rejected":
            raise Rejected(event.type, str(event.id), answer.reason, answer.errors)
        return answer.outcome

    async def _answer(self, event: Event, body: bytes, wait: Wait) -> Answer:
        pending = await self._submit(event, body, wait, asked=True)
        self._ledger.watch(pending, body)
        try:
            if not await wait.for_(pending.accepted):
                raise self._late(event, wait.limit)
            raise_if(pending.accepted.result())
            if not await wait.for_(pending.answer):
                raise self._late(event, wait.limit)
        finally:
            self._ledger.unwatch(pending)
            if pending.accepted.done() and not pending.watchers:
                self._ledger.forget(pending)  # was its answer lost, the next call sends it again
        answer = pending.answer.result()
        if isinstance(answer, PublishingError):
            raise again(answer)
        return answer

    async def _submit(self, event: Event, body: bytes, wait: Wait, *, asked: bool) -> Pending:
        """The event as it stands in the ledger, put on its way where it was not."""
        key = _key(event)
        found = self._ledger.find(key)
        if found is None:
            await self._room(event, len(body), wait)
            found = self._ledger.find(key)
            if found is None:
                return self._start(event, body, asked=asked)
            self._ledger.give_back(len(body))
        if found.fingerprint != hash(body):
            text = "another event with this source and id is under way"
            raise InvalidEvent(event.type, [ErrorDetail(loc=("id",), msg=text, type="id_in_use")])
        if asked and not found.asked:  # nobody will answer that one: send it again when it is done
            if not await wait.for_(found.accepted):
                raise self._late(event, wait.limit)
            self._ledger.forget(found)
            return await self._submit(event, body, wait, asked=asked)
        return found

    async def _room(self, event: Event, size: int, wait: Wait) -> None:
        turn = self._ledger.room(size)
        if turn is None:
            return
        try:
            if await wait.for_(turn):
                return
        except asyncio.CancelledError:
            self._ledger.leave(turn, size)
            raise
        self._ledger.leave(turn, size)
        raise self._late(event, wait.limit)

    def _start(self, event: Event, body: bytes, *, asked: bool) -> Pending:
        if self._dispatcher is None or self._closing:
            self._ledger.give_back(len(body))
            raise PublisherClosed("the publisher is not open: use it in an 'async with' block")
        stamp = self._numbering.stamp(event, body)  # here, where nothing refuses it any more
        pending = self._ledger.open(_key(event), event.type, body, asked=asked, stamp=stamp)
        self._batcher.put(pending)
        return pending

    def _send(self, parcel: Parcel) -> None:
        if self._dispatcher is not None:
            self._dispatcher.send(parcel)

    def _resend(self) -> None:
        """A new connection cannot bring the answers of the old one: ask again for those that are waited for."""
        for pending in self._ledger.link_lost():
            self._batcher.put(pending)

    def _on_reply(self, body: bytes, correlation_id: str) -> None:
        settle_reply(self._ledger, body, correlation_id)

    def _late(self, event: Event, limit: float) -> PublishingError:
        if self._dispatcher is not None and self._dispatcher.trouble is not None:
            return again(self._dispatcher.trouble)
        return too_late(f"{event.type} {event.id}", self._ledger.find(_key(event)), limit)

    def _need_source(self) -> str:
        if self._source is None:
            raise ValueError("give the publisher a source, such as source='/agents/infra-1'")
        return self._source


def _key(event: Event) -> EventKey:
    return event.source, str(event.id)
