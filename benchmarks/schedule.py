"""What is run, as data: which contenders on which loads, how many messages, how many rounds. Full and quick."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.rounds import SLOW, Entry


@dataclass(frozen=True)
class Schedule:
    """The entries of all rounds, and at which rates latency is measured."""

    entries: tuple[Entry, ...]
    minutes: float
    """No round begins after so many minutes."""
    latency_contenders: tuple[str, ...] = ()
    latency_rates: tuple[float, ...] = ()
    latency_at_capacity: bool = False
    latency_seconds: float = 4.0
    latency_looks: int = 1

    @property
    def loads(self) -> list[str]:
        """The loads, in the order of the entries."""
        return list(dict.fromkeys(entry.load for entry in self.entries))

    def only(
        self,
        loads: Sequence[str] | None = None,
        contenders: Sequence[str] | None = None,
        rounds: int | None = None,
    ) -> "Schedule":
        """A part of it."""
        entries = tuple(
            replace(entry, rounds=rounds or entry.rounds)
            for entry in self.entries
            if (loads is None or entry.load in loads)
            and (contenders is None or entry.contender in contenders)
        )
        kept = tuple(
            name for name in self.latency_contenders if contenders is None or name in contenders
        )
        return replace(self, entries=entries, latency_contenders=kept)


def _entries(load: str, messages: int, rounds: int, contenders: Sequence[str]) -> tuple[Entry, ...]:
    return tuple(
        Entry(name, load, max(200, round(messages * SLOW.get(name, 1.0))), rounds)
        for name in contenders
    )


_CORE = ("reference", "reference-2", "ours", "ours-2")
_FASTSTREAM = ("faststream-sqlalchemy", "faststream-asyncpg")
_EXTREMES = ("ours-batch", "bare-copy")
_OTHERS = ("reference-event-a-message", "aio-pika-sqlalchemy", "celery", "mq-bridge")

FULL = Schedule(
    entries=(
        *_entries("logs", 20_000, 5, (*_CORE, *_FASTSTREAM, *_EXTREMES)),
        *_entries("logs", 16_000, 2, _OTHERS),
        *_entries("lifecycle", 16_000, 5, (*_CORE, *_FASTSTREAM)),
        *_entries("trajectories", 4_000, 5, (*_CORE, *_FASTSTREAM)),
        *_entries("mix", 12_000, 5, (*_CORE, *_FASTSTREAM)),
        *_entries("recorded", 20_000, 2, ("reference", "ours", "ours-2")),
    ),
    minutes=15.5,
    latency_contenders=("ours", "faststream-asyncpg"),
    latency_rates=(100, 1_000),
    latency_at_capacity=True,
    latency_looks=5,
)
"""`make bench`: under 20 minutes on two quiet cores."""

QUICK = Schedule(
    entries=(
        *_entries("logs", 15_000, 2, ("reference", "ours", "ours-2", "reference-2", *_EXTREMES)),
        *_entries("logs", 8_000, 1, _FASTSTREAM),
        *_entries("lifecycle", 12_000, 2, ("reference", "ours")),
        *_entries("trajectories", 3_000, 2, ("reference", "ours")),
        *_entries("mix", 10_000, 2, ("reference", "ours")),
    ),
    minutes=2,
    latency_contenders=("ours",),
    latency_rates=(100,),
)
"""`make bench-quick`: under 3 minutes, to see which way a change goes."""
