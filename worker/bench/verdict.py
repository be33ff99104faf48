"""Where the time goes: the stage whose own limit is nearest to what all of them reach together. Pure.

The broker's limit is what it hands out when nothing is stored; the database's what it stores when nothing is consumed;
the worker's what its processes would do if they never waited: their messages for each second of CPU that they used.
"""

from dataclasses import dataclass
from typing import Literal

Stage = Literal["broker", "database", "worker"]

_CLIENT_BUSY = 0.85
"""From here on the processes that fed the database were the limit, and the database can do more than was seen."""
_FLUSH_SHARE = 0.25
_SLOW_ROUND_TRIP = 0.001
_MACHINE_BUSY = 0.85
_WHOLE = 10
_NEAR = 0.5
"""Below this share of the nearest limit, no stage alone explains the rate."""


@dataclass(frozen=True)
class Limit:
    """What one stage does alone, in messages a second; at least so much where the measurement could not feed it more."""

    stage: Stage
    rate: float
    at_least: bool = False


@dataclass(frozen=True)
class Figures:
    """What is judged. Rates in messages a second, times in seconds."""

    rate: float
    broker_rate: float
    database_rate: float
    client_busy: float
    processes: int
    messages: int
    worker_cpu: float | None
    cores: int
    machine_busy: float | None
    transactions_per_second: float
    in_flight: int
    flush: float
    database_round_trip: float
    broker_round_trip: float


@dataclass(frozen=True)
class Verdict:
    """The stage, how much of its own limit is reached, and both as sentences."""

    stage: Stage
    share: float
    text: str
    advice: str
    limits: tuple[Limit, ...]


def judge(figures: Figures) -> Verdict:
    """The nearest limit, and what can be done about it."""
    limits = [
        Limit("broker", figures.broker_rate),
        Limit("database", figures.database_rate, figures.client_busy >= _CLIENT_BUSY),
    ]
    if figures.worker_cpu:
        limits.append(Limit("worker", figures.processes * figures.messages / figures.worker_cpu))
    nearest = min(limits, key=lambda limit: limit.rate)
    share = figures.rate / nearest.rate
    return Verdict(
        nearest.stage,
        share,
        _text(figures, nearest, share),
        _advice(figures, nearest.stage, share),
        tuple(limits),
    )


def _text(figures: Figures, nearest: Limit, share: float) -> str:
    reached = f"The {nearest.stage}: all together reach {figures.rate:,.0f} messages a second"
    alone = f"{nearest.rate:,.0f} that the {nearest.stage} {_ALONE[nearest.stage]}"
    if share >= 1:
        return f"{reached}, no less than the {alone}."
    text = f"{reached}, {share:.0%} of the {alone}."
    if share < _NEAR:
        text += " It is the nearest limit, but no stage alone explains this rate."
    return text


def _advice(figures: Figures, stage: Stage, share: float) -> str:
    busy = figures.machine_busy or 0.0
    full = busy >= _MACHINE_BUSY
    machine = (
        f"The {figures.cores} cores of this machine were {busy:.0%} busy: all that runs on it competes "
        "for them."
    )
    if share < _NEAR:
        return machine if full else _WAITING
    advice = {"broker": _broker, "database": _database, "worker": _worker}[stage](figures)
    return f"{advice} {machine}" if full else advice


_ALONE = {
    "broker": "hands out alone",
    "database": "stores alone",
    "worker": "processes would do if they never waited",
}


_WAITING = (
    "The stages wait for each other: more transactions at a time (WORKER_TRANSACTIONS) or more processes (--processes) "
    "let them work side by side."
)


def _broker(figures: Figures) -> str:
    return (
        f"A round trip to it takes {_ms(figures.broker_round_trip)}. Look at its disk and CPU and at the replicas of its "
        "queues; publishers that send many events as one message (batch mode) spare it most of the work."
    )


def _database(figures: Figures) -> str:
    waiting = figures.transactions_per_second * figures.flush / max(1, figures.in_flight)
    if waiting >= _FLUSH_SHARE:
        return (
            f"A commit waits {_ms(figures.flush)} for the disk or a synchronous standby, which is {min(waiting, 1):.0%} "
            "of the time of a transaction. Give the WAL a faster disk, or let more messages share a commit "
            "(WORKER_BATCH_MESSAGES)."
        )
    if figures.database_round_trip >= _SLOW_ROUND_TRIP:
        return (
            f"Every statement waits {_ms(figures.database_round_trip)} for the network. Run the workers nearer to it, or "
            "more transactions at a time (WORKER_TRANSACTIONS, --processes)."
        )
    return (
        f"Neither the flush of a commit ({_ms(figures.flush)}) nor the network ({_ms(figures.database_round_trip)}) "
        "holds it up: look at its CPU, its checkpoints (max_wal_size) and its disk; more workers do not help."
    )


def _worker(figures: Figures) -> str:
    cores_left = figures.cores - figures.processes
    if cores_left > 0 and (figures.machine_busy or 0) < _MACHINE_BUSY:
        return (
            f"A process uses one core, and this machine has {figures.cores}: "
            f"'worker run --processes {figures.processes + 1}' uses another one."
        )
    return "A process uses one core, and no core of this machine is left: run more workers on another machine."


def _ms(seconds: float) -> str:
    milliseconds = 1000 * seconds
    return f"{milliseconds:.0f} ms" if milliseconds >= _WHOLE else f"{milliseconds:.2f} ms"
