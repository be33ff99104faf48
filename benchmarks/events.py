"""Made-up events of every measured family: bodies of the sizes that agents send, the same for every run.

Pure: a seed gives the same words; keys are UUIDv7 of the present month, as an agent's are.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from contracts.identifiers import uuid7

Event = dict[str, Any]

SOURCE = "/agents/bench-{}"
LOGS_OF_A_TASK = 20
STEPS = 20
"""Steps of a made-up trajectory, which is about 8 KB then."""

_WORDS = [
    "plan",
    "apply",
    "refresh",
    "state",
    "module",
    "resource",
    "subnet",
    "gateway",
    "cluster",
    "node",
    "pool",
    "policy",
    "secret",
    "token",
    "build",
    "test",
    "deploy",
    "verify",
    "compare",
    "restore",
    "archive",
    "migrate",
    "index",
    "schema",
    "column",
    "query",
    "result",
    "retry",
    "timeout",
    "latency",
    "memory",
    "budget",
    "agent",
    "worker",
    "session",
    "review",
    "approve",
    "reject",
    "merge",
    "commit",
    "branch",
    "file",
]


class Maker:
    """Makes events with words and numbers of one random source."""

    def __init__(self, seed: int = 7, start: datetime | None = None) -> None:
        self._random = random.Random(seed)  # noqa: S311 (test data)
        now = start or datetime.now(UTC).replace(microsecond=0)
        self._now = now - timedelta(minutes=10)

    def logs(self, count: int) -> Iterator[Event]:
        """`execution.logged` of about 600 bytes, 20 a task."""
        task = uuid7()
        for number in range(count):
            if number % LOGS_OF_A_TASK == 0:
                task = uuid7()
            data = {
                "task_id": str(task),
                "log_id": str(uuid7()),
                "step_number": number % LOGS_OF_A_TASK,
                "agent_type": self._random.choice(("infra", "code", "research", "desktop")),
                "action": self._words(5),
                "status": "failed" if self._random.random() < 0.05 else "completed",  # noqa: PLR2004 (one in twenty)
                "output_summary": self._words(6),
                "output_full": {"lines": [self._words(4)], "exit_code": self._random.randrange(3)},
                "duration_ms": self._random.randrange(30_000),
            }
            yield self._event("execution.logged", data)

    def lifecycle(self, count: int) -> Iterator[Event]:
        """Lives of tasks, four events each: created, approved, started, completed or failed."""
        made = 0
        while made < count:
            for event in self._life():
                if made < count:
                    yield event
                made += 1

    def trajectories(self, count: int, steps: int = STEPS) -> Iterator[Event]:
        """`trajectory.recorded` of about 8 KB, 50 a training job."""
        job = uuid7()
        for number in range(count):
            if number % 50 == 0:
                job = uuid7()
            data = {
                "job_id": str(job),
                "agent_id": f"agent-{self._random.randrange(40)}",
                "trajectory_id": str(uuid7()),
                "query": self._words(12),
                "reward": round(self._random.random(), 4),
                "normalized_reward": round(self._random.gauss(0, 1), 4),
                "steps": [self._step(step) for step in range(steps)],
                "execution_time_ms": self._random.randrange(90_000),
                "success": self._random.random() < 0.5,  # noqa: PLR2004 (half of them)
            }
            yield self._event("trajectory.recorded", data)

    def mix(self, count: int) -> Iterator[Event]:
        """70 % logs, 20 % lifecycle, 10 % trajectories, interleaved."""
        streams = [self.logs(count), self.lifecycle(count), self.trajectories(count)]
        for number in range(count):
            yield next(streams[0 if number % 10 < 7 else 1 if number % 10 < 9 else 2])  # noqa: PLR2004 (the shares)

    def sized(self, count: int, size: int) -> Iterator[Event]:
        """`execution.logged` whose output makes a body of about this many bytes."""
        for event in self.logs(count):
            filler = max(0, size - 600)
            lines = [self._words(10) for _ in range(16)]
            text = " ".join(lines)
            event["data"]["output_full"] = {"text": (text * (filler // len(text) + 1))[:filler]}
            yield event

    def _life(self) -> Iterator[Event]:
        task = str(uuid7())
        agent = f"agent-{self._random.randrange(40)}"
        yield self._event(
            "task.created",
            {
                "task_id": task,
                "request_text": self._words(10),
                "created_by": "bench",
                "agent_id": agent,
                "type": self._random.choice(("deploy", "review", "migrate")),
                "priority": self._random.randrange(1, 11),
                "input": {"branch": self._words(1), "files": [self._words(1), self._words(2)]},
                "metadata": {"team": self._words(1), "region": self._words(1)},
            },
        )
        yield self._event(
            "task.approved", {"task_id": task, "by": "bench", "reason": self._words(4)}
        )
        yield self._event("task.started", {"task_id": task, "agent_id": agent})
        used = {"cpu_seconds": self._random.randrange(900), "cost_usd": 0.25}
        if self._random.random() < 0.9:  # noqa: PLR2004 (most end well)
            output = {"summary": self._words(8), "changed": self._random.randrange(50)}
            yield self._event(
                "task.completed", {"task_id": task, "output": output, "actual_resources": used}
            )
        else:
            yield self._event(
                "task.failed",
                {"task_id": task, "error_message": self._words(8), "actual_resources": used},
            )

    def _step(self, number: int) -> dict[str, Any]:
        return {
            "state": {"messages": [self._words(12)], "tokens": self._random.randrange(4000)},
            "action": {"tool": self._words(1), "arguments": {"path": self._words(3), "n": number}},
            "result": {"output": self._words(18), "ok": True},
            "duration_ms": self._random.randrange(5000),
        }

    def _words(self, count: int) -> str:
        return " ".join(self._random.choices(_WORDS, k=count))

    def _event(self, event_type: str, data: dict[str, Any]) -> Event:
        self._now += timedelta(milliseconds=1)
        identity: UUID = uuid7()
        return {
            "specversion": "1.0",
            "id": str(identity),
            "source": SOURCE.format(self._random.randrange(20)),
            "type": event_type,
            "time": self._now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "datacontenttype": "application/json",
            "tenantid": "default",
            "data": data,
        }
