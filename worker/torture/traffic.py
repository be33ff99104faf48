"""Who publishes in a torture run: agents that use the client, agents that publish raw bodies, and a careless one.

Promises that no more is under way than the window allows, and that each publish is repeated until the broker has it.
"""

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from itertools import count, cycle
from typing import Any
from uuid import UUID

from contracts.client import Publisher, PublishingError, Rejected, Unanswered
from contracts.envelope import CONTENT_TYPE_BATCH, Event, EventData
from contracts.execution_log import ExecutionLogged
from contracts.identifiers import uuid7
from contracts.registry import contract_types
from worker.broker.pace import Pace
from worker.demo.agents import Agent, out_of_order, training_job
from worker.demo.traffic import until
from worker.torture import mistakes
from worker.torture.ledger import Ledger
from worker.torture.raw import Parcel, RawPublisher

_TASKS_AT_ONCE = 12
_EVERY = 12
"""One in so many messages is published a second time."""
_WELL_BEHAVED = 200
"""So many messages are published for every set of mistakes."""
_LARGEST_BATCH = 300
_TENANTS = ("default", "default", "tenant-a", "tenant-b")
_PATIENCE = 60.0
_PAUSE = 0.2
_RECORDED_AT_ONCE = 100
_CREATING = ("task.created", "training.queued")


@dataclass(frozen=True)
class Load:
    """How much is published, by how many agents, for how long."""

    seconds: float
    agents: int
    seed: int
    rate: float | None = None
    window: int = 8_000
    recorded: Sequence[Event] = ()


class _Maker:
    """Makes events with ids of the ledger."""

    def __init__(self, ledger: Ledger, source: str, tenant: str) -> None:
        self._ledger = ledger
        self._attributes = {"source": source, "tenant": tenant}

    def event(self, data: EventData, **attributes: Any) -> Event:
        return data.event(**self._attributes, id=self._ledger.issue(), **attributes)


class Traffic:
    """All publishing of one run."""

    def __init__(self, load: Load, url: str, ledger: Ledger) -> None:
        self._load = load
        self._url = url
        self._ledger = ledger
        self._pace = Pace(load.rate)
        self._logs: deque[Event] = deque(maxlen=1000)
        self._published = 0
        self._ends = 0.0

    @property
    def over(self) -> bool:
        """Whether the time for publishing is over."""
        return time.monotonic() > self._ends

    async def flow(self) -> None:
        """Publish for the given time; returns when the broker has confirmed everything."""
        self._ends = time.monotonic() + self._load.seconds
        styles = cycle((self._ask, self._hand_over, self._publish_singly, self._publish_batches))
        async with asyncio.TaskGroup() as tasks:
            for number, style in zip(range(self._load.agents), styles, strict=False):
                tasks.create_task(self._work(number, style))
            tasks.create_task(self._be_careless())
            if self._load.recorded:
                tasks.create_task(self._replay())

    # --- agents ---

    async def _work(self, number: int, style: Any) -> None:
        """One agent: tasks from their beginning to their end, out of order, some of it twice."""
        source = f"/agents/torture-{number + 1}"
        maker = _Maker(self._ledger, source, _TENANTS[number % len(_TENANTS)])
        job = uuid7()
        agent = Agent(number, maker, job, self._load.seed + number)
        chance = random.Random(self._load.seed + number)  # noqa: S311 (a run that can be repeated)
        told = training_job(maker, job)
        again: list[Event] = []
        async with style(source, chance) as publish:
            while not self.over:
                told += [event for _ in range(_TASKS_AT_ONCE) for event in agent.work()]
                await self._turn(len(told))
                await publish(out_of_order(told + again, chance.getrandbits(32)))
                self._logs.extend(event for event in told if event.type == "execution.logged")
                told, again = [], told[::_EVERY]

    @contextlib.asynccontextmanager
    async def _ask(self, source: str, _: random.Random) -> AsyncIterator[Any]:
        """By the client, waiting until each message is stored."""
        async with self._client(source) as publisher:

            async def publish(events: Sequence[Event]) -> None:
                await asyncio.gather(*(self._persist(publisher, event) for event in events))

            yield publish

    @contextlib.asynccontextmanager
    async def _hand_over(self, source: str, _: random.Random) -> AsyncIterator[Any]:
        """By the client, waiting until the broker has each message."""
        async with self._client(source, replies=False) as publisher:

            async def publish(events: Sequence[Event]) -> None:
                pairs = [mistakes.twins(self._ledger, event) for event in _with_keys(events)]
                everything = [*events, *(event for pair in pairs for event in pair)]
                await asyncio.gather(*(self._hand(publisher, event) for event in everything))

            yield publish

    @contextlib.asynccontextmanager
    async def _publish_singly(self, source: str, chance: random.Random) -> AsyncIterator[Any]:
        """Raw, one event a message, some asking for a reply."""
        async with self._raw(source) as publisher:

            async def publish(events: Sequence[Event]) -> None:
                await self._publish(
                    publisher,
                    (
                        Parcel((event.id,), event.type, event.to_json(), asks=chance.random() < 0.1)  # noqa: PLR2004 (one in ten)
                        for event in events
                    ),
                )

            yield publish

    @contextlib.asynccontextmanager
    async def _publish_batches(self, source: str, chance: random.Random) -> AsyncIterator[Any]:
        """Raw, many events of one family a message."""
        async with self._raw(source) as publisher:

            async def publish(events: Sequence[Event]) -> None:
                await self._publish(publisher, _batches(events, chance))

            yield publish

    # --- others ---

    async def _replay(self) -> None:
        """Recorded runs, again and again, each time for another tenant."""
        async with self._client("/agents/recorded", replies=False) as publisher:
            for number in count(1):
                events = out_of_order(self._load.recorded, self._load.seed + number)
                while events and not self.over:
                    told, events = events[:_RECORDED_AT_ONCE], events[_RECORDED_AT_ONCE:]
                    await self._tell(publisher, told, f"recorded-{number}")
                if self.over:  # what was begun is named, so that nothing is known by name only
                    named = [event for event in events if event.type in _CREATING]
                    await self._tell(publisher, named, f"recorded-{number}")
                    break

    async def _tell(self, publisher: Publisher, events: Sequence[Event], tenant: str) -> None:
        """Publish these events under new ids, for this tenant."""
        await self._turn(len(events))
        told = [
            event.model_copy(update={"id": self._ledger.issue(), "tenantid": tenant})
            for event in events
        ]
        await asyncio.gather(*(self._hand(publisher, event) for event in told))

    async def _be_careless(self) -> None:
        """Bad messages of every kind, a few for every hundred good ones."""
        chance = random.Random(self._load.seed)  # noqa: S311 (as above)
        done = 0
        async with self._raw("/agents/careless") as publisher:
            while not self.over:
                await asyncio.sleep(0.05)
                stored = self._stored_log()
                if stored is None or self._ledger.sends < done + _WELL_BEHAVED:
                    continue
                done = self._ledger.sends
                bad = list(mistakes.mistakes(self._ledger, stored, chance))
                bad += mistakes.rivals(self._ledger, stored)
                for _ in bad:  # few enough to need no room in the window
                    await self._pace.turn()
                await self._publish(publisher, bad)

    def _stored_log(self) -> Event | None:
        """An entry of an execution log of which a worker has told that it is stored."""
        if self._logs and self._ledger.is_done(self._logs[0].id):
            return self._logs.popleft()
        return None

    # --- publishing one thing ---

    async def _turn(self, events: int) -> None:
        """Wait until there is room in the window, and for the rate."""
        await until(lambda: self._ledger.under_way <= self._load.window or self.over)
        for _ in range(events):
            await self._pace.turn()

    async def _publish(self, publisher: RawPublisher, parcels: Iterable[Parcel]) -> None:
        await asyncio.gather(*(self._publish_one(publisher, parcel) for parcel in parcels))

    async def _publish_one(self, publisher: RawPublisher, parcel: Parcel) -> None:
        for key in parcel.keys:
            self._ledger.note_sent(key, asked=parcel.asks)
        await publisher.publish(parcel)
        for key in parcel.keys:
            self._ledger.note_accepted(key)

    async def _persist(self, publisher: Publisher, event: Event) -> None:
        """Until the worker has said that it is stored."""
        self._ledger.note_sent(event.id, asked=True)
        while True:
            try:
                await publisher.persisted(event, timeout=_PATIENCE)
            except Unanswered:
                self._ledger.note_accepted(event.id)
                if self.over:
                    return  # the verdict says that no reply came
            except Rejected:
                break  # the verdict says that it became a dead letter
            except PublishingError:
                await asyncio.sleep(_PAUSE)
            else:
                break
        self._ledger.note_accepted(event.id)
        self._ledger.note_answered(str(event.id))

    async def _hand(self, publisher: Publisher, event: Event) -> None:
        """Until the broker has it."""
        self._ledger.note_sent(event.id)
        while True:
            try:
                await publisher.publish(event, timeout=_PATIENCE)
            except PublishingError:
                await asyncio.sleep(_PAUSE)
            else:
                break
        self._ledger.note_accepted(event.id)

    def _client(self, source: str, *, replies: bool = True) -> Publisher:
        return Publisher(self._url, source=source, batch=True, replies=replies, close_timeout=5)

    @contextlib.asynccontextmanager
    async def _raw(self, source: str) -> AsyncIterator[RawPublisher]:
        publisher = RawPublisher(self._url, f"torture {source}")
        try:
            yield publisher
        finally:
            await publisher.close()


def _with_keys(events: Sequence[Event]) -> list[Event]:
    """Some entries of execution logs, with a key of their own that no other message has."""
    found = [event for event in events if event.type == ExecutionLogged.event_type][::40]
    return [
        event.model_copy(update={"data": {**event.data, "log_id": str(uuid7())}}) for event in found
    ]


def _batches(events: Sequence[Event], chance: random.Random) -> Iterable[Parcel]:
    """The events as batches of one family each, of many sizes."""
    families: dict[str, list[Event]] = {}
    for event in events:
        families.setdefault(contract_types()[event.type][0].name, []).append(event)
    for told in families.values():
        rest = list({event.id: event for event in told}.values())
        while rest:
            size = chance.choice((1, 5, 50, _LARGEST_BATCH))
            part, rest = rest[:size], rest[size:]
            keys: tuple[UUID, ...] = tuple(event.id for event in part)
            body = b"[" + b",".join(event.to_json() for event in part) + b"]"
            asks = chance.random() < 0.2  # noqa: PLR2004 (one in five)
            yield Parcel(keys, part[0].type, body, CONTENT_TYPE_BATCH, asks=asks)
