"""Publishes the confirmation events and the replies of outbox entries, with publisher confirms.

Promises: it says of which entries the broker took every event, and only of these. A reply goes to an address that a
publisher chose, and some addresses make the broker close the connection; such a reply is found by sending replies one
by one, and given up after it broke a connection twice, so that nobody's address can keep others from their
confirmations; nor can a listener whose queue is full and refuses them.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC
from typing import Any
from uuid import UUID, uuid5

import orjson
import structlog

from contracts.confirmation import EXCHANGE
from contracts.envelope import CONTENT_TYPE
from contracts.limits import MAX_CONFIRMATION_BYTES
from worker import telemetry
from worker.broker.publisher import Answer, ConfirmedPublisher
from worker.crash_points import reached
from worker.errors import Unavailable
from worker.store.outbox import OutboxEntry, as_text

log = structlog.get_logger()

_MOST_STRIKES = 2


class Announcer:
    """Publishes entries for one worker; remembers which replies broke connections."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._careful: set[UUID] = set()
        self._strikes: Counter[tuple[UUID, int]] = Counter()

    async def publish(
        self, publisher: ConfirmedPublisher, entries: Sequence[OutboxEntry]
    ) -> list[OutboxEntry]:
        """Publish all events and replies of these entries; returns those that are done: the broker took every event.

        Raises Unavailable where the channel was lost before it had answered.
        """
        reached("before_publish")
        taken = await self._publish_events(publisher, entries)
        together = [entry for entry in entries if entry.id not in self._careful]
        await self._publish_replies(publisher, together)
        for entry in entries:
            if entry.id in self._careful:
                await self._publish_replies_one_by_one(publisher, entry)
        reached("after_publish")
        return taken

    async def _publish_events(
        self, publisher: ConfirmedPublisher, entries: Sequence[OutboxEntry]
    ) -> list[OutboxEntry]:
        """The entries of which every event was taken; the others wait, since a queue that listens refuses them."""
        under_way = [
            [
                publisher.publish(EXCHANGE, _routing_key(group), body, content_type=CONTENT_TYPE)
                for group in entry.payload["groups"]
                for body in confirmation_bodies(entry, group, self._worker)
            ]
            for entry in entries
        ]
        await publisher.drain()
        answers = [await asyncio.gather(*events) for events in under_way]
        counts = Counter(answer for each in answers for answer in each)
        telemetry.outbox_published.labels("event").inc(counts[Answer.ACCEPTED])
        telemetry.outbox_failed.inc(counts.total() - counts[Answer.ACCEPTED])
        if counts[Answer.LOST]:
            raise Unavailable(
                f"the connection to RabbitMQ broke before {counts[Answer.LOST]} confirmations were taken"
            )
        taken = [
            entry
            for entry, each in zip(entries, answers, strict=True)
            if all(answer is Answer.ACCEPTED for answer in each)
        ]
        if len(taken) < len(entries):
            why = "a queue that is bound to agent.confirmations is full and refuses them"
            log.warning("confirmations refused", rows=len(entries) - len(taken), why=why)
        return taken

    async def _publish_replies(
        self, publisher: ConfirmedPublisher, entries: Sequence[OutboxEntry]
    ) -> None:
        """All at once; where the connection breaks over it, these entries are handled with care the next time."""
        answers = [
            answer
            for entry in entries
            for reply in entry.payload["replies"]
            for answer in self._reply(publisher, entry, reply)
        ]
        if not answers:
            return
        lost = await self._lost(publisher, answers)
        if lost:
            self._careful.update(entry.id for entry in entries if entry.payload["replies"])
            raise Unavailable(f"the connection to RabbitMQ broke before {lost} replies were taken")

    async def _publish_replies_one_by_one(
        self, publisher: ConfirmedPublisher, entry: OutboxEntry
    ) -> None:
        for number, reply in enumerate(entry.payload["replies"]):
            place = (entry.id, number)
            if self._strikes[place] >= _MOST_STRIKES:
                telemetry.replies_given_up.inc()
                log.warning("reply given up", why="its address breaks the connection to RabbitMQ")
                continue
            if await self._lost(publisher, self._reply(publisher, entry, reply)):
                self._strikes[place] += 1
                raise Unavailable("the connection to RabbitMQ broke over one reply")
        self._careful.discard(entry.id)
        for number in range(len(entry.payload["replies"])):
            del self._strikes[entry.id, number]

    async def _lost(
        self, publisher: ConfirmedPublisher, answers: Sequence[asyncio.Future[Answer]]
    ) -> int:
        """How many replies were lost with the connection; the broker's acknowledgement, of either kind, ends one."""
        await publisher.drain()
        lost = sum(answer is Answer.LOST for answer in await asyncio.gather(*answers))
        telemetry.outbox_published.labels("reply").inc(len(answers) - lost)
        telemetry.outbox_failed.inc(lost)
        return lost

    def _reply(
        self, publisher: ConfirmedPublisher, entry: OutboxEntry, reply: dict[str, Any]
    ) -> list[asyncio.Future[Answer]]:
        return [
            publisher.publish(
                "",
                reply["reply_to"],
                body,
                content_type=CONTENT_TYPE,
                correlation_id=reply["correlation_id"],
            )
            for body in confirmation_bodies(entry, reply, self._worker)
        ]


def _routing_key(group: dict[str, Any]) -> str:
    return f"{group['family']}.{group['outcome']}.{group['tenant']}"


def confirmation_bodies(entry: OutboxEntry, group: dict[str, Any], worker: str) -> Iterator[bytes]:
    """The `persistence.confirmed` events for one outcome and tenant, each at most 1 MiB."""
    committed_at = entry.committed_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    whole = _event(entry, group, worker, committed_at, group["items"], 0)
    if len(whole) <= MAX_CONFIRMATION_BYTES:
        yield whole
        return
    chunk: list[dict[str, Any]] = []
    size = number = 0
    for item in group["items"]:
        length = len(orjson.dumps(item, default=as_text))
        if chunk and size + length > MAX_CONFIRMATION_BYTES - 4096:
            yield _event(entry, group, worker, committed_at, chunk, number)
            chunk, size, number = [], 0, number + 1
        chunk.append(item)
        size += length + 1
    yield _event(entry, group, worker, committed_at, chunk, number)


def _event(
    entry: OutboxEntry,
    group: dict[str, Any],
    worker: str,
    committed_at: str,
    items: list[dict[str, Any]],
    number: int,
) -> bytes:
    event = {
        "specversion": "1.0",
        "id": _event_id(entry.id, group, number),
        "source": f"/workers/{worker}",
        "type": "persistence.confirmed",
        "time": committed_at,
        "datacontenttype": "application/json",
        "tenantid": group["tenant"],
        "data": {
            "family": group["family"],
            "outcome": group["outcome"],
            "tenant": group["tenant"],
            "worker": worker,
            "committed_at": committed_at,
            "items": items,
        },
    }
    return orjson.dumps(event, default=as_text)


def _event_id(entry_id: UUID, group: dict[str, Any], number: int) -> str:
    """The same id whenever the same row is published again, so that readers can tell a repetition."""
    name = f"{group['family']}/{group['outcome']}/{group['tenant']}/{group.get('reply_to', '')}/{group.get('correlation_id', '')}/{number}"
    return str(uuid5(entry_id, name))
