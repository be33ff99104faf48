"""THE transaction: facts, entities, dead letters, what the loss ledger gains and one outbox row, committed together or not at all.

Its result is one outcome a message. A batch that PostgreSQL refuses is bisected inside a transaction until the culprit
stands alone; the rest lands. Nothing is acknowledged here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import asyncpg

from worker import telemetry
from worker.crash_points import reached
from worker.errors import Invalid
from worker.message import Accepted, Decoded, Delivery, Message, Outcome, Rejected
from worker.store import foreign_keys, letters, loss_ledger, outbox
from worker.store.database import Database, translate
from worker.store.facts import rejection
from worker.store.outbox import OutboxEntry, ReplyRule
from worker.store.writer import Writer


@dataclass(frozen=True, slots=True)
class Committed:
    """What a transaction did: one outcome a message, and the outbox row that confirms them."""

    outcomes: list[Outcome]
    entry: OutboxEntry


class Persister:
    """Writes batches of one family."""

    def __init__(self, database: Database, writer: Writer, family: str, reply_queues: str) -> None:
        self._database = database
        self._writer = writer
        self._family = family
        ignored = telemetry.replies_ignored.labels(family)
        self._reply_rule = ReplyRule(reply_queues, ignored.inc)

    async def persist(self, decoded: Sequence[Decoded]) -> Committed:
        """Commit a batch. Raises Unavailable (nothing is stored, or all of it: try again) or Misconfigured."""
        try:
            return await self._transaction(decoded, bisect=False)
        except Invalid as error:
            telemetry.transactions.labels(self._family, "invalid").inc()
            if error.sqlstate == foreign_keys.VIOLATION:
                # A table of another shape is no message's fault.
                async with self._database.transaction() as connection:
                    await foreign_keys.require_deferred(connection, self._writer.declared_facts)
            return await self._transaction(decoded, bisect=True)

    async def _transaction(self, decoded: Sequence[Decoded], *, bisect: bool) -> Committed:
        messages = [item for item in decoded if isinstance(item, Message)]
        rejected = [item for item in decoded if isinstance(item, Rejected)]
        deliveries = {id(item.delivery): item.delivery for item in decoded}
        async with self._database.transaction() as connection:
            replayed = await letters.verify(connection, list(deliveries.values()))
            outcomes: list[Outcome] = list(rejected)
            if messages:
                write = self._write_bisecting if bisect else self._writer.write
                outcomes += await write(connection, messages)
            await self._settle_letters(connection, outcomes, replayed, bisect=bisect)
            await loss_ledger.record(connection, outcomes)
            content = outbox.payload(outcomes, self._reply_rule)
            entry_id, size = await outbox.write(connection, self._family, content)
            reached("before_commit")
        reached("after_commit")
        self._count_false_claims(deliveries.values(), replayed)
        entry = OutboxEntry(entry_id, self._family, content, datetime.now(UTC), size)
        return Committed(outcomes, entry)

    async def _write_bisecting(
        self, connection: asyncpg.Connection, messages: Sequence[Message]
    ) -> list[Outcome]:
        """Write what can be written: halves, each in a savepoint, until a refused message stands alone."""
        try:
            async with connection.transaction():
                outcomes = await self._writer.write(connection, messages)
                await connection.execute(foreign_keys.CHECK_NOW)
                return outcomes
        except Exception as error:
            meant = translate(error)
            if not isinstance(meant, Invalid):
                raise
            if len(messages) == 1:
                text = str(meant) if meant.reason else f"PostgreSQL refused the row: {meant}"
                return [rejection(messages[0], meant.reason or "unstorable", text)]
        middle = len(messages) // 2
        first = await self._write_bisecting(connection, messages[:middle])
        return first + await self._write_bisecting(connection, messages[middle:])

    async def _settle_letters(
        self,
        connection: asyncpg.Connection,
        outcomes: Sequence[Outcome],
        replayed: dict[int, UUID],
        *,
        bisect: bool,
    ) -> None:
        """Write rejections as letters; resolve the letters whose replay was stored, or became letters of its own."""
        rejected = [outcome for outcome in outcomes if isinstance(outcome, Rejected)]
        if rejected:
            write = letters.write_one_by_one if bisect else letters.write
            await write(connection, rejected, replayed)
        if replayed:
            again = {id(item.delivery) for item in rejected if item.index is None}
            bodies = {
                replayed[id(delivery)]: delivery.body
                for outcome in outcomes
                for delivery in [_delivery(outcome)]
                if id(delivery) in replayed and id(delivery) not in again
            }
            await letters.resolve(connection, bodies)

    def _count_false_claims(
        self, deliveries: Iterable[Delivery], replayed: dict[int, UUID]
    ) -> None:
        false = sum(
            letters.claimed_letter(delivery) is not None and id(delivery) not in replayed
            for delivery in deliveries
        )
        if false:
            telemetry.letter_headers_ignored.labels(self._family).inc(false)


def _delivery(outcome: Outcome) -> Delivery:
    return outcome.message.delivery if isinstance(outcome, Accepted) else outcome.delivery
