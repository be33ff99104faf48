"""The books: what was published, what was answered, what was heard, and whether it all adds up with the tables.

Promises that a message which was published and of which no trace is found is named as lost, and that nothing counts as
stored because somebody said so: the tables are read.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from contracts.client import Publisher, PublishingError, Rejected
from contracts.confirmation import PersistenceConfirmed
from contracts.envelope import Envelope, Event
from contracts.execution_log import ExecutionLogged
from worker.demo.mistakes import Mistake
from worker.families import plan
from worker.store.database import Database
from worker.store.schema import Kind, tables_of_kind

_KEPT_LOGS = 100


class Ledger:
    """What the agents published and what they were answered."""

    def __init__(self) -> None:
        self.published = 0
        self.times: Counter[UUID] = Counter()
        """How often each good message was published."""
        self.mistakes: Counter[str] = Counter()
        """How many bad messages were published, by the reason they have to be refused for."""
        self.answers: Counter[str] = Counter()
        """Answers to good messages: persisted or duplicate."""
        self.troubles: list[str] = []
        """Good messages that were refused, or never answered."""
        self.logs: list[Event] = []
        """Some entries of execution logs that are stored."""
        self.begin = 0.0
        self.end = 0.0

    @property
    def repeated(self) -> int:
        """How many messages were published a second time."""
        return self.times.total() - len(self.times)

    @property
    def answered(self) -> int:
        """How many good messages were answered."""
        return self.answers.total()

    @property
    def under_way(self) -> int:
        """How many good messages were neither answered nor given up."""
        return self.times.total() - self.answered - len(self.troubles)

    @property
    def rate(self) -> float:
        """Good messages answered in a second, from the first publish to the last answer."""
        return self.answered / (self.end - self.begin) if self.end > self.begin else 0.0

    async def publish(self, publisher: Publisher, event: Event) -> None:
        """Publish a good message, wait until the database has it, and write down what was answered."""
        self.begin = self.begin or time.monotonic()
        self.published += 1
        self.times[event.id] += 1
        try:
            outcome = await publisher.persisted(event, timeout=60)
        except PublishingError as error:
            refused = "refused" if isinstance(error, Rejected) else "not answered"
            self.troubles.append(f"{event.type} {event.id} was {refused}: {error}")
        else:
            self.answers[outcome] += 1
            if event.type == ExecutionLogged.event_type and len(self.logs) < _KEPT_LOGS:
                self.logs.append(event)
        self.end = time.monotonic()

    async def publish_all(self, publisher: Publisher, events: list[Event]) -> None:
        """Publish good messages, all at the same time."""
        await asyncio.gather(*(self.publish(publisher, event) for event in events))

    def note(self, mistakes: list[Mistake]) -> None:
        """Bad messages were published."""
        self.published += len(mistakes)
        self.mistakes.update(mistake.reason for mistake in mistakes)


class Hearing:
    """What was heard on the exchange of confirmations, each confirmation counted once however often it came."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.persisted: set[str] = set()
        """The ids of messages that were confirmed as persisted."""
        self._events: set[UUID] = set()

    def take(self, body: bytes) -> None:
        """One confirmation event."""
        envelope = Envelope.model_validate_json(body)
        if envelope.id in self._events:
            return
        self._events.add(envelope.id)
        data = PersistenceConfirmed.model_validate(envelope.data)
        self.outcomes[data.outcome] += len(data.items)
        self.reasons.update(item.reason for item in data.items if item.reason)
        if data.outcome == "persisted":
            self.persisted.update(item.id for item in data.items if item.id)

    def complete(self, ledger: Ledger) -> bool:
        """Whether every message was heard of."""
        return self.reasons >= ledger.mistakes and len(self.persisted) >= len(ledger.times)


@dataclass(frozen=True)
class Check:
    """One thing that has to be so, and whether it is."""

    text: str
    holds: bool
    found: str = ""


@dataclass(frozen=True)
class Findings:
    """What stands in the tables after all, and what follows from it."""

    rows: dict[str, int]
    """Rows of each table that messages reach."""
    letters: Counter[str]
    """Dead letters by reason."""
    checks: tuple[Check, ...]

    @property
    def balanced(self) -> bool:
        """Whether every message is accounted for."""
        return all(check.holds for check in self.checks)


async def audit(database: Database, ledger: Ledger, hearing: Hearing) -> Findings:
    """Compare the books with the tables."""
    plan()  # names every table
    async with database.transaction() as connection:
        stored = await _stored(connection)
        rows = {
            table.name: await connection.fetchval(f'SELECT count(*) FROM "{table.name}"')  # noqa: S608 (names of the model)
            for table in (*tables_of_kind(Kind.ENTITY), *tables_of_kind(Kind.FACT))
        }
        empty = 0
        for table in tables_of_kind(Kind.ENTITY):
            sql = f'SELECT count(*) FROM "{table.name}" WHERE placeholder'  # noqa: S608 (as above)
            empty += await connection.fetchval(sql)
        found = await connection.fetch("SELECT reason, count(*) FROM dead_letters GROUP BY reason")
    letters = Counter({row["reason"]: row["count"] for row in found})
    lost = len(ledger.times.keys() - stored.keys())
    twice = sum(times > 1 for times in stored.values())
    strange = len(stored.keys() - ledger.times.keys())
    unheard = len(ledger.times.keys() - {UUID(key) for key in hearing.persisted})
    wanted = f"{len(ledger.times):,} different good messages"
    checks = (
        Check(
            f"each of {wanted} is in its table exactly once",
            not (lost or twice or strange),
            f"{lost:,} lost, {twice:,} twice, {strange:,} never published",
        ),
        Check(
            f"each of {ledger.mistakes.total():,} bad messages is a dead letter, with the right reason",
            letters == ledger.mistakes,
            f"dead letters: {dict(letters)}, published: {dict(ledger.mistakes)}",
        ),
        Check(
            f"each of {ledger.times.total():,} good publishes was answered",
            ledger.answered == ledger.times.total(),
            "; ".join(ledger.troubles[:3]),
        ),
        Check(
            "each message was confirmed on the exchange of confirmations too",
            not unheard and hearing.reasons >= ledger.mistakes,
            f"{unheard:,} good ones unheard; refusals heard: {dict(hearing.reasons)}",
        ),
        Check(
            "every task and training job that something was said about is there in full",
            not empty,
            f"{empty:,} are known by name only",
        ),
    )
    return Findings(rows, letters, checks)


async def _stored(connection: asyncpg.Connection) -> Counter[UUID]:
    """How often each message is in a table."""
    stored: Counter[UUID] = Counter()
    for table in tables_of_kind(Kind.FACT):
        found = await connection.fetch(f'SELECT event_id FROM "{table.name}"')  # noqa: S608 (names of the model)
        stored.update(row["event_id"] for row in found)
    return stored
