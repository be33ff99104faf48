"""Interleaved rounds: every contender on every load, once a round, in an order that turns.

Owns how many messages each contender gets: enough for a second or two of its own pace, so that slow peers do not take
the whole time. A run that fails or does not hold what it should is kept with its problems and has no part in any ratio.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import asyncpg

from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.figures import Rounds
from benchmarks.latency import Latency
from benchmarks.load import Load
from benchmarks.measure import Measurement, measure
from benchmarks.services import Services

SLOW = {
    "faststream-sqlalchemy": 0.03,
    "faststream-asyncpg": 0.04,
    "aio-pika-sqlalchemy": 0.05,
    "celery": 0.04,
    "mq-bridge": 0.2,
    "reference-event-a-message": 0.5,
    "ours-batch": 2.0,
    "bare-copy": 2.0,
}
"""The share of a load's messages that a contender gets; 1 where it is not named. Above 1: fast, so more of them."""


@dataclass(frozen=True)
class Entry:
    """A contender on a load, in so many of the rounds."""

    contender: str
    load: str
    messages: int
    rounds: int


@dataclass
class Results:
    """Every measurement, by round."""

    measurements: list[tuple[int, Measurement]] = field(default_factory=list)
    looks: list[tuple[int, Latency]] = field(default_factory=list)
    """Looks at latency, each with its number: those of one number stand side by side, as the runs of a round do."""
    left_out: dict[str, str] = field(default_factory=dict)

    def rounds_of(self, load: str, figure: str) -> Rounds:
        """The figures of a load, a mapping a round; without runs that had problems."""
        rounds: dict[int, dict[str, float]] = {}
        for number, found in self.measurements:
            if found.load == load and not found.problems:
                rounds.setdefault(number, {})[found.contender] = getattr(found, figure)
        for number, look in self.looks:
            if look.load == load:
                rounds.setdefault(number, {})[look.contender] = getattr(look, figure)
        return list(rounds.values())

    def good(self) -> Iterator[Measurement]:
        """Every measurement without a problem."""
        return (found for _, found in self.measurements if not found.problems)

    def bad(self) -> Iterator[Measurement]:
        """Every measurement with one."""
        return (found for _, found in self.measurements if found.problems)


Progress = Callable[[int, int, Measurement], None]


async def run(
    services: Services,
    entries: Sequence[Entry],
    loads: Mapping[str, Load],
    progress: Progress,
    *,
    deadline: float | None = None,
) -> Results:
    """Run all rounds; after the deadline (of time.monotonic) no more is begun, but for the first."""
    results = Results()
    entries = [entry for entry in entries if _can_run(entry, results)]
    total = sum(entry.rounds for entry in entries)
    done = 0
    order = random.Random(11)  # noqa: S311 (an order, no secret)
    for number in range(max((entry.rounds for entry in entries), default=0)):
        for load in loads:
            if deadline is not None and number and time.monotonic() > deadline:
                results.left_out[f"round {number + 1}, {load}"] = "the time was over"
                continue
            turn = [e for e in entries if e.load == load and number < e.rounds]
            order.shuffle(turn)
            for entry in turn:
                found = await _measured(services, CONTENDERS[entry.contender], entry, loads[load])
                results.measurements.append((number, found))
                done += 1
                progress(done, total, found)
    return results


def _can_run(entry: Entry, results: Results) -> bool:
    contender = CONTENDERS[entry.contender]
    if why := contender.missing:
        results.left_out[entry.contender] = why
    return why is None and contender.can(entry.load)


async def _measured(
    services: Services, contender: Contender, entry: Entry, load: Load
) -> Measurement:
    try:
        return await measure(services, contender, load.first(entry.messages))
    except (RuntimeError, TimeoutError, asyncpg.PostgresError) as error:
        why = str(error) or type(error).__name__
        return Measurement(contender.name, load.name, entry.messages, 0, 1.0, {}, 0.0, 0.0, 0.0, [why])  # fmt: skip
