"""What is to be reached, as data: pairs of contenders, loads, and the ratio between them, or a figure of one alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.figures import Ratio, Rounds, ratio, spread


@dataclass(frozen=True)
class Target:
    """A ratio between two contenders over some loads, or of one alone a figure; `at_most` where small is good."""

    text: str
    above: str
    below: str | None
    loads: tuple[str, ...]
    bound: float
    at_most: bool = False
    figure: str = "rate"


SMALL = ("logs", "lifecycle", "mix")
TARGETS = (
    Target("single events, 1 process, against the C reference", "ours", "reference", SMALL, 0.85),
    Target("the same, trajectories", "ours", "reference", ("trajectories",), 0.80),
    Target(
        "2 processes against the C reference with 2",
        "ours-2",
        "reference-2",
        (*SMALL, "trajectories"),
        0.90,
    ),
    Target("batch mode against bare COPY", "ours-batch", "bare-copy", ("logs",), 0.80),
    Target("against FastStream + SQLAlchemy", "ours", "faststream-sqlalchemy", SMALL, 35),
    Target("the same, trajectories", "ours", "faststream-sqlalchemy", ("trajectories",), 12),
    Target("against FastStream + asyncpg", "ours", "faststream-asyncpg", SMALL, 14),
    Target("the same, trajectories", "ours", "faststream-asyncpg", ("trajectories",), 7),
    Target(
        "CPU of worker, broker and database for 10,000, against the reference",
        "ours",
        "reference",
        ("logs",),
        1.2,
        at_most=True,
        figure="cpu_total",
    ),
    Target(
        "p50 of latency at 100/s, against FastStream + asyncpg",
        "ours",
        "faststream-asyncpg",
        ("100/s",),
        1,
        at_most=True,
        figure="p50",
    ),
    Target("p99 of it", "ours", "faststream-asyncpg", ("100/s",), 1, at_most=True, figure="p99"),
    Target(
        "10,000 of 20 steps on disk, in MB",
        "ours",
        None,
        ("trajectories",),
        100,
        at_most=True,
        figure="disk_mb",
    ),
)


@dataclass(frozen=True)
class Verdict:
    """A target for one load, and what was found."""

    target: Target
    load: str
    found: Ratio | None

    @property
    def met(self) -> bool | None:
        """Whether it is met; None where it was not measured."""
        if self.found is None:
            return None
        if self.target.at_most:
            return self.found.median <= self.target.bound
        return self.found.median >= self.target.bound


def judge(rounds_of: Callable[[str, str], Rounds]) -> list[Verdict]:
    """A verdict for each target and load; `rounds_of` gives the rounds of a load's figure."""
    return [
        Verdict(target, load, _found(rounds_of(load, target.figure), target))
        for target in TARGETS
        for load in target.loads
    ]


def _found(rounds: Rounds, target: Target) -> Ratio | None:
    if target.below is None:
        return spread([figures[target.above] for figures in rounds if target.above in figures])
    return ratio(rounds, target.above, target.below)


def as_json(verdict: Verdict) -> Mapping[str, object]:
    """A verdict for programs."""
    found = verdict.found
    return {
        "target": verdict.target.text,
        "load": verdict.load,
        "figure": verdict.target.figure,
        "above": verdict.target.above,
        "below": verdict.target.below,
        "bound": verdict.target.bound,
        "at_most": verdict.target.at_most,
        "median": found and found.median,
        "lowest": found and found.lowest,
        "highest": found and found.highest,
        "rounds": found.rounds if found else 0,
        "met": verdict.met,
    }
