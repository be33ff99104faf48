"""What a measurement has shown, as data: the command prints it, and programs get it as JSON."""

from dataclasses import dataclass
from typing import Any

from worker.bench.broker import BrokerAlone
from worker.bench.database import Answers, DatabaseAlone
from worker.bench.verdict import Verdict
from worker.bench.whole import Backlog, Latency

_PER = 10_000


@dataclass(frozen=True)
class Accounts:
    """What was published and stored, held against what is there after all. Every sentence in `problems` is a fault."""

    published: int
    rows: int
    confirmed: int
    problems: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing, and nothing too much."""
        return not self.problems


@dataclass(frozen=True)
class Results:
    """One measurement."""

    family: str
    processes: int
    body_bytes: int
    cores: int
    services: tuple[str, ...]
    broker_round_trip: float
    answers: Answers
    database: DatabaseAlone
    broker: BrokerAlone
    latency: Latency
    backlog: Backlog
    verdict: Verdict
    accounts: Accounts

    @property
    def worker_cpu_per_10k(self) -> float | None:
        """CPU seconds of the worker processes for 10,000 messages."""
        used = self.backlog.worker_cpu
        return (
            None
            if used is None or not self.backlog.confirmed
            else (_PER * used / self.backlog.confirmed)
        )

    def as_json(self) -> dict[str, Any]:
        """For programs: rates in messages a second, times in milliseconds unless the name says otherwise."""
        limits = {limit.stage: limit for limit in self.verdict.limits}
        return {
            "complete": self.accounts.complete,
            "verdict": {
                "stage": self.verdict.stage,
                "share": _rounded(self.verdict.share, 3),
                "text": self.verdict.text,
                "advice": self.verdict.advice,
            },
            "family": self.family,
            "processes": self.processes,
            "messages": self.backlog.messages,
            "body_bytes": self.body_bytes,
            "messages_per_second": round(self.backlog.rate),
            "latency_ms": {
                "rate": self.latency.rate,
                "messages": self.latency.messages,
                "p50": _milliseconds(self.latency.p50),
                "p99": _milliseconds(self.latency.p99),
                "broker_confirm_p50": _milliseconds(self.latency.broker_confirm),
            },
            "worker_cpu_seconds_per_10000": _rounded(self.worker_cpu_per_10k, 2),
            "stages": {
                "broker": {
                    "messages_per_second": round(self.broker.rate),
                    "publish_messages_per_second": round(self.broker.publish_rate),
                    "round_trip_ms": _milliseconds(self.broker_round_trip),
                },
                "database": {
                    "messages_per_second": round(self.database.rate),
                    "at_least": limits["database"].at_least,
                    "transactions": self.database.transactions,
                    "client_busy": round(self.database.client_busy, 2),
                    "round_trip_ms": _milliseconds(self.answers.round_trip),
                    "commit_ms": _milliseconds(self.answers.commit),
                    "flush_ms": _milliseconds(self.answers.flush),
                },
                "worker": {
                    "messages_per_second": (
                        round(limits["worker"].rate) if "worker" in limits else None
                    ),
                    "decode_messages_per_second": round(self.database.decode_rate),
                },
            },
            "machine": {"cores": self.cores, "busy": _rounded(self.backlog.machine_busy, 2)},
            "services": list(self.services),
            "accounts": {
                "published": self.accounts.published,
                "rows": self.accounts.rows,
                "confirmed": self.accounts.confirmed,
                "problems": list(self.accounts.problems),
            },
        }


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 3)


def _rounded(value: float | None, places: int) -> float | None:
    return None if value is None else round(value, places)
