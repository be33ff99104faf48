"""A load: what is published for one run, and what has to be in the database after it.

Owns the names of the loads. A load is made once and published anew for every run, so that all contenders get the same
bytes.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from uuid import UUID

import orjson

from benchmarks.events import Event, Maker
from contracts.registry import contract_types
from worker.broker.topology import queue_name
from worker.families import plan

RECORDED = "recorded"
BATCH_EVENTS = 500


@dataclass(frozen=True, slots=True)
class Body:
    """One AMQP message to publish: an event, or in batch mode many of one family."""

    routing_key: str
    content: bytes


@dataclass
class Load:
    """The events of one run."""

    name: str
    events: Sequence[Event]
    batched: bool = False
    since: UUID | None = None
    """Where the tables held rows before: this load's keys come after it."""
    _bodies: list[Body] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.events)

    @property
    def bodies(self) -> list[Body]:
        """What is published, in order."""
        if not self._bodies:
            self._bodies = list(
                _batches(self.events) if self.batched else map(_single, self.events)
            )
        return self._bodies

    @cached_property
    def size(self) -> float:
        """Mean bytes of a body."""
        return sum(len(body.content) for body in self.bodies) / len(self.bodies)

    @cached_property
    def families(self) -> tuple[str, ...]:
        """The families whose queues it fills."""
        return tuple(sorted({family_of(event["type"]) for event in self.events}))

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues that it fills."""
        return tuple(map(queue_name, self.families))

    @cached_property
    def rows(self) -> Counter[str]:
        """How many rows of each append-only table it has to become."""
        return Counter(table_of(event["type"]) for event in self.events)

    def first(self, count: int) -> "Load":
        """The same load, cut to its first events: for contenders that would take minutes over all of it."""
        return self if count >= len(self) else Load(self.name, self.events[:count], self.batched)

    def in_batches(self) -> "Load":
        """The same events, published in batch mode."""
        return Load(self.name, self.events, batched=True)


def family_of(event_type: str) -> str:
    """The family of an event type."""
    return contract_types()[event_type][0].name


def table_of(event_type: str) -> str:
    """The append-only table that holds an event's row."""
    fact = plan().facts.get(event_type)
    return "lifecycle_events" if fact is None else fact.table.name


def make(name: str, count: int) -> Load:
    """The load of this name; the recorded runs as far as they go. Raises LookupError for another name."""
    if name == RECORDED:
        return Load(name, _recorded()[:count])
    maker = Maker()
    made = {
        "logs": maker.logs,
        "lifecycle": maker.lifecycle,
        "trajectories": maker.trajectories,
        "mix": maker.mix,
    }[name]
    return Load(name, list(made(count)))


def recorded_place() -> Path | None:
    """The file of recorded runs, if there is one: WORKER_RECORDED_RUNS, or the one beside the checkout."""
    if named := os.environ.get("WORKER_RECORDED_RUNS"):
        return Path(named)
    found = sorted(Path(__file__).resolve().parents[2].glob("shared/data/agent-runs-*.json"))
    return found[0] if found else None


def _recorded() -> list[Event]:
    from worker.demo.recorded import events, read  # noqa: PLC0415 (only where runs are there)

    place = recorded_place()
    if place is None:
        raise LookupError("WORKER_RECORDED_RUNS names no file of recorded runs")
    return [orjson.loads(event.to_json()) for event in events(read(place))]


def _single(event: Event) -> Body:
    return Body(event["type"], orjson.dumps(event))


def _batches(events: Iterable[Event]) -> Iterable[Body]:
    open_: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        batch = open_[family_of(event["type"])]
        batch.append(event)
        if len(batch) == BATCH_EVENTS:
            yield Body(batch[0]["type"], orjson.dumps(batch))
            batch.clear()
    yield from (Body(batch[0]["type"], orjson.dumps(batch)) for batch in open_.values() if batch)
