"""Made-up events of the measured families: bodies of the sizes that agents send.

Promises events that pass their contracts, with keys that no other run has; a seed gives the same words.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from uuid import UUID

import orjson

from contracts.identifiers import uuid7

MIX = "mix"
FAMILIES = ("execution-log", "task-lifecycle", "trajectory")
CHOICES = (*FAMILIES, MIX)

_PATTERN = ("execution-log",) * 7 + ("task-lifecycle",) * 2 + ("trajectory",)
"""The mix: of ten messages seven are logs, two tell of tasks, one is a trajectory."""
_LOGS_OF_A_TASK = 20
_STEPS = 20
_SOURCES = 20
_WORDS = """
agent apply archive branch budget build cluster column commit compare deploy file gateway index merge migrate module node
plan policy pool query refresh reject resource restore result retry review session state test token verify worker
""".split()  # noqa: SIM905 (a word a line would be forty lines)


@dataclass(frozen=True, slots=True)
class Item:
    """One event, ready to be published."""

    family: str
    type: str
    id: UUID
    body: bytes


def make(family: str, count: int, seed: int = 1) -> list[Item]:
    """So many events of this family, or of the mix."""
    streams = _Streams(random.Random(seed))  # noqa: S311 (a measurement that can be repeated)
    if family != MIX:
        return list(islice(streams.of(family), count))
    each = {name: streams.of(name) for name in FAMILIES}
    return [next(each[_PATTERN[number % len(_PATTERN)]]) for number in range(count)]


class _Streams:
    """Endless events, one stream a family."""

    def __init__(self, chance: random.Random) -> None:
        self._random = chance

    def of(self, family: str) -> Iterator[Item]:
        streams: dict[str, Callable[[], Iterator[tuple[str, dict[str, Any]]]]] = {
            "execution-log": self._logs,
            "task-lifecycle": self._lives,
            "trajectory": self._trajectories,
        }
        for event_type, data in streams[family]():
            identity = uuid7()
            event = {
                "specversion": "1.0",
                "id": str(identity),
                "source": f"/agents/bench-{self._random.randrange(_SOURCES)}",
                "type": event_type,
                "time": datetime.now(UTC).isoformat(),
                "datacontenttype": "application/json",
                "tenantid": "default",
                "data": data,
            }
            yield Item(family, event_type, identity, orjson.dumps(event))

    def _logs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """About 600 bytes each, 20 a task."""
        while True:
            task = str(uuid7())
            for number in range(_LOGS_OF_A_TASK):
                yield (
                    "execution.logged",
                    {
                        "task_id": task,
                        "log_id": str(uuid7()),
                        "step_number": number,
                        "agent_type": "code",
                        "action": self._words(5),
                        "status": "completed",
                        "output_summary": self._words(6),
                        "output_full": {"lines": [self._words(6)], "exit_code": 0},
                        "duration_ms": self._random.randrange(30_000),
                    },
                )

    def _lives(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Tasks from their beginning to their end: created, approved, started, completed."""
        while True:
            task = str(uuid7())
            agent = f"agent-{self._random.randrange(_SOURCES)}"
            created = {
                "task_id": task,
                "request_text": self._words(10),
                "created_by": "bench",
                "agent_id": agent,
                "priority": self._random.randrange(1, 11),
                "input": {"branch": self._words(1), "files": [self._words(1), self._words(2)]},
            }
            yield "task.created", created
            yield "task.approved", {"task_id": task, "by": "bench", "reason": self._words(4)}
            yield "task.started", {"task_id": task, "agent_id": agent}
            yield "task.completed", {"task_id": task, "output": {"summary": self._words(8)}}

    def _trajectories(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """About 8 KB each, of one training job."""
        job = str(uuid7())
        while True:
            yield (
                "trajectory.recorded",
                {
                    "job_id": job,
                    "agent_id": f"agent-{self._random.randrange(_SOURCES)}",
                    "trajectory_id": str(uuid7()),
                    "query": self._words(12),
                    "reward": round(self._random.random(), 4),
                    "steps": [self._step() for _ in range(_STEPS)],
                    "execution_time_ms": self._random.randrange(90_000),
                    "success": True,
                },
            )

    def _step(self) -> dict[str, Any]:
        return {
            "state": {"messages": [self._words(16)], "tokens": self._random.randrange(4000)},
            "action": {"tool": self._words(1), "arguments": {"path": self._words(3)}},
            "result": {"output": self._words(20), "ok": True},
            "duration_ms": self._random.randrange(5000),
        }

    def _words(self, count: int) -> str:
        return " ".join(self._random.choices(_WORDS, k=count))
