"""The database alone, in a process of its own: decode events in memory, then time their transactions.

Run as `python -m worker.bench.persisting` by `worker/bench/database.py`, one for each worker process, since a worker's
statements are made by a core of its own too. Commands come as JSON lines on standard input, answers go as JSON lines to
standard output; it ends when its input does. Rows of the outbox are deleted as the relay would, with nothing published.
"""

import asyncio
import json
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from worker import families, logs
from worker.app import collect_seldom
from worker.bench.events import Item, make
from worker.decode import Decoder
from worker.errors import Misconfigured, WorkerError
from worker.message import Decoded, Delivery, Properties
from worker.settings import Settings
from worker.store import outbox
from worker.store.database import Database
from worker.store.encryption import cipher_of
from worker.store.persist import Persister
from worker.store.writer import Writer

MISCONFIGURED = 2
UNAVAILABLE = 3


@dataclass(frozen=True)
class Made:
    """Events that are decoded and wait; `seconds` is the CPU time of decoding them."""

    ids: list[str]
    seconds: float


@dataclass(frozen=True)
class Persisted:
    """When it began and ended, by the clock that all processes of a machine share; its CPU time, and its transactions."""

    begin: float
    end: float
    cpu_seconds: float
    transactions: int
    in_flight: int
    """How many of them ran at a time."""


class Persisting:
    """What a worker does between decoding and acknowledging, and nothing else."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = Database(settings.database, name="bench", pool_size=settings.pool_size)
        writer = Writer(families.plan(), cipher_of(settings.encryption))
        known = families.families().items()
        self._decoders = {
            name: Decoder(family.contract, facts=families.plan().facts).decode
            for name, family in known
        }
        self._persisters = {
            name: Persister(self._database, writer, name, settings.reply_queues)
            for name, _ in known
        }
        self._batches: dict[str, deque[list[Decoded]]] = {}

    def make(self, family: str, count: int, seed: int) -> Made:
        """Make events and decode them."""
        items = make(family, count, seed)
        deliveries = [_delivery(tag, item) for tag, item in enumerate(items, 1)]
        collect_seldom()  # as a worker does
        begin = time.process_time()
        decoded = [(one.family, self._decoders[one.family](one)) for one in deliveries]
        seconds = time.process_time() - begin
        by_family: dict[str, list[Decoded]] = {}
        for name, messages in decoded:
            by_family.setdefault(name, []).extend(messages)
        most = self._settings.batch_messages
        self._batches = {
            name: deque(messages[at : at + most] for at in range(0, len(messages), most))
            for name, messages in by_family.items()
        }
        return Made([item.id.hex for item in items], seconds)

    async def persist(self) -> Persisted:
        """Commit all that waits, as many transactions at a time as a worker has. Raises Unavailable or Misconfigured."""
        begin, cpu = time.monotonic(), time.process_time()
        entries: list[UUID] = []
        async with asyncio.TaskGroup() as tasks:
            for family in self._batches:
                for _ in range(self._settings.transactions):
                    tasks.create_task(self._persist_family(family, entries))
        async with self._database.transaction() as connection:
            await outbox.delete(connection, entries)
        in_flight = len(self._batches) * self._settings.transactions
        used = time.process_time() - cpu
        return Persisted(begin, time.monotonic(), used, len(entries), in_flight)

    async def close(self) -> None:
        """Close every connection."""
        await self._database.close()

    async def _persist_family(self, family: str, entries: list[UUID]) -> None:
        batches = self._batches[family]
        while batches:
            committed = await self._persisters[family].persist(batches.popleft())
            entries.append(committed.entry.id)


def _delivery(tag: int, item: Item) -> Delivery:
    """As it would come from the family's queue."""
    return Delivery(
        family=item.family,
        tag=tag,
        redelivered=False,
        exchange="",
        routing_key=item.type,
        body=item.body,
        properties=Properties(),
        properties_raw=b"",
    )


async def _serve(settings: Settings) -> None:
    """Do what comes on standard input: {"make": [family, count, seed]} or {"persist": []}."""
    persisting = Persisting(settings)
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked: dict[str, Any] = json.loads(line)
            made = persisting.make(*asked["make"]) if "make" in asked else None
            answer = made if made is not None else await persisting.persist()
            sys.stdout.write(json.dumps(asdict(answer)) + "\n")
            sys.stdout.flush()
    finally:
        await persisting.close()


def main() -> None:
    """Serve until the input ends; a failure is a sentence on standard error and the exit code of the commands."""
    logs.configure("warning")  # to standard error
    try:
        asyncio.run(_serve(Settings.load()))
    except* WorkerError as errors:
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        sys.stderr.write(f"{error}\n")
        code = MISCONFIGURED if isinstance(error, Misconfigured) else UNAVAILABLE
    else:
        code = 0
    sys.exit(code)


if __name__ == "__main__":
    main()
