"""Simulated agents: what they work on, and how they tell of it, written as a user of the client would write it.

Each agent does tasks, many at a time, and publishes what happens: the task's life, a log entry a step, a trajectory
for the training job that all agents serve. Its messages leave in no order, and some of them twice, as from an agent
that was restarted and did not know what had arrived.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar
from uuid import UUID

from contracts.envelope import Event, EventData
from contracts.execution_log import ExecutionLogged
from contracts.identifiers import uuid7
from contracts.task_lifecycle import (
    TaskApproved,
    TaskCancelled,
    TaskCompleted,
    TaskCreated,
    TaskDependsOn,
    TaskFailed,
    TaskRetrying,
    TaskStarted,
)
from contracts.trajectory import (
    GRPOConfig,
    PolicyCheckpointSaved,
    TrainingCompleted,
    TrainingProgressed,
    TrainingQueued,
    TrainingStarted,
    TrajectoryRecorded,
)

T = TypeVar("T")


class EventMaker(Protocol):
    """What puts data into an envelope; `contracts.client.Publisher` does."""

    def event(self, data: EventData, **attributes: Any) -> Event:
        """The data in an envelope."""


@dataclass(frozen=True)
class Trade:
    """What a kind of agent does for a living."""

    agent_type: str
    requests: tuple[str, ...]
    steps: tuple[str, ...]
    problem: str


TRADES = (
    Trade(
        "infra",
        (
            "Bring up a staging cluster",
            "Renew the certificates",
            "Move the backups to cold storage",
        ),
        ("read the current state", "plan the change", "apply the plan", "check health"),
        "the provider did not answer within 30 s",
    ),
    Trade(
        "research",
        ("Compare three vector indexes", "Summarise the incident reports of May", "Find sources"),
        ("search the web", "read what was found", "weigh the sources", "write the summary"),
        "all sources were behind a login",
    ),
    Trade(
        "code",
        ("Fix the flaky login test", "Add paging to the order list", "Upgrade the web framework"),
        (
            "clone the repository",
            "run the tests",
            "edit the files",
            "run the tests",
            "open a review",
        ),
        "4 of 212 tests failed",
    ),
    Trade(
        "desktop",
        ("Fill in the travel expenses", "Sort the inbox", "Export the quarter's invoices"),
        ("open the application", "find the form", "fill it in", "save"),
        "the window did not open",
    ),
)


class Agent:
    """One simulated agent: makes the events of its tasks. `seed` decides what happens to it."""

    def __init__(self, number: int, publisher: EventMaker, job: UUID, seed: int) -> None:
        self.trade = TRADES[number % len(TRADES)]
        self.name = f"{self.trade.agent_type}-{number + 1}"
        self._publisher = publisher
        self._job = job
        self._random = random.Random(seed)  # noqa: S311 (a simulation that can be repeated)
        self._last: UUID | None = None

    def work(self) -> list[Event]:
        """One task from its beginning to its end."""
        diary = _Diary(self._publisher, self._random)
        task = uuid7()
        diary.note(
            TaskCreated(
                task_id=task,
                request_text=self._random.choice(self.trade.requests),
                created_by="demo",
                type=self.trade.agent_type,
                priority=self._random.randint(1, 10),
                agent_id=self.name,
                metadata={"demo": True},
            )
        )
        if self._last is not None and self._happens(0.2):
            diary.note(TaskDependsOn(task_id=task, depends_on_task_id=self._last))
        self._last = task
        if self._happens(0.03):
            diary.note(TaskCancelled(task_id=task, by="demo", reason="no longer needed"))
            return diary.events
        diary.note(TaskApproved(task_id=task, by="demo"))
        if self._happens(0.15):
            self._attempt(diary, task, attempt=1, succeeds=False)
            diary.note(TaskRetrying(task_id=task, attempt=2))
            self._attempt(diary, task, attempt=2, succeeds=self._happens(0.8))
        else:
            self._attempt(diary, task, attempt=1, succeeds=self._happens(0.9))
        return diary.events

    def _happens(self, share: float) -> bool:
        """Whether something happens that does so in this share of all cases."""
        return self._random.random() < share

    def _attempt(self, diary: "_Diary", task: UUID, *, attempt: int, succeeds: bool) -> None:
        """Work on a task step by step, and be rewarded for it."""
        begin = diary.time
        diary.note(TaskStarted(task_id=task, agent_id=self.name, attempt=attempt))
        steps = self.trade.steps
        for number, action in enumerate(steps):
            fails = not succeeds and number == len(steps) - 1
            duration = diary.pass_time()
            diary.note(
                ExecutionLogged(
                    task_id=task,
                    log_id=uuid7(),
                    step_number=number,
                    agent_type=self.trade.agent_type,
                    action=action,
                    status="failed" if fails else "completed",
                    output_summary=self.trade.problem if fails else f"{action}: done",
                    output_full={"attempt": attempt, "lines": [f"{action} …", "done"]},
                    duration_ms=duration,
                )
            )
        if succeeds:
            diary.note(TaskCompleted(task_id=task, output={"ok": True}, attempt=attempt))
        else:
            diary.note(TaskFailed(task_id=task, error_message=self.trade.problem, attempt=attempt))
        diary.note(
            TrajectoryRecorded(
                job_id=self._job,
                agent_id=self.name,
                query=self.trade.requests[0],
                steps=[_step(number, action) for number, action in enumerate(steps)],
                reward=round(self._random.uniform(0.5, 1), 3) if succeeds else 0.0,
                execution_time_ms=round((diary.time - begin).total_seconds() * 1000),
                success=succeeds,
            )
        )


class _Diary:
    """What happened, with a time of its own that passes faster than the demonstration's."""

    def __init__(self, publisher: EventMaker, chance: random.Random) -> None:
        self._publisher = publisher
        self._random = chance
        self.time = datetime.now(UTC) - timedelta(minutes=1)
        self.events: list[Event] = []

    def note(self, data: EventData) -> None:
        """It happened now."""
        self.time += timedelta(milliseconds=1)
        self.events.append(self._publisher.event(data, time=self.time))

    def pass_time(self) -> int:
        """Some milliseconds go by; how many."""
        passed = self._random.randint(40, 4000)
        self.time += timedelta(milliseconds=passed)
        return passed


def training_job(publisher: EventMaker, job: UUID, iterations: int = 5) -> list[Event]:
    """The training job that the agents' trajectories belong to, with the policies that it saves."""
    trainer = "policy-under-training"
    begin = datetime.now(UTC) - timedelta(minutes=2)
    checkpoints = [uuid7() for _ in range(iterations)]
    told: list[EventData] = [
        TrainingQueued(
            job_id=job,
            agent_id=trainer,
            total_iterations=iterations,
            config=GRPOConfig(n_iterations=iterations),
        ),
        TrainingStarted(job_id=job),
    ]
    for number, checkpoint in enumerate(checkpoints, 1):
        score = round(1 - 0.6**number, 4)
        told += [
            TrainingProgressed(
                job_id=job, current_iteration=number, metrics={"mean_reward": score}
            ),
            PolicyCheckpointSaved(
                job_id=job,
                agent_id=trainer,
                iteration=number,
                checkpoint_id=checkpoint,
                policy_s3_path=f"s3://policies/demo/{number}",
                validation_score=score,
            ),
        ]
    told.append(TrainingCompleted(job_id=job, best_checkpoint_id=checkpoints[-1]))
    return [
        publisher.event(data, time=begin + timedelta(seconds=number))
        for number, data in enumerate(told)
    ]


def out_of_order(items: Sequence[T], seed: int) -> list[T]:
    """The items in an order that only the seed decides."""
    return random.Random(seed).sample(items, len(items))  # noqa: S311 (as above)


def _step(number: int, action: str) -> Any:
    return {"state": {"step": number}, "action": {"do": action}, "result": {"ok": True}}
