"""Recorded runs of a tool-using agent, converted into the events that such an agent would have published. Pure.

- A run is one task: `task.created` with the instruction, `task.started`, and `task.completed` where the reward is above
  zero, else `task.failed`.
- A message is one `execution.logged`. `output_full` is the whole message as it was recorded, `agent_type` its role,
  `output_summary` its first 500 characters, `status` failed where a tool answered with an error.
- A run is also one `trajectory.recorded`, with a step for each message of the assistant (the first 100): `state` is what
  it had seen since its last one, `action` what it said or called, `result` what came back.
- The runs of one task_id are a group. `normalized_reward` is (reward - mean) / standard deviation of the group, 0 where
  the group has no variance; `advantage` is reward - mean; `training.progressed` tells of the group.
- All runs are one training job: `training.queued`, `training.started`, `training.completed`.

Ids are made of task_id, trial and message index and the times that runs.py gives, so that a second load is the same
events: they are UUIDv7 of these times, and their random bits are a digest. The job and its trajectories are also made
of which runs there are, since they tell of the whole. Durations are left out: nobody measured them.
Texts go through unchanged, but for half surrogate pairs, which UTF-8 cannot hold: they become U+FFFD.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from itertools import groupby
from statistics import fmean, pstdev
from typing import Any
from uuid import UUID

from contracts.envelope import Event, EventData
from contracts.execution_log import ExecutionLogged
from contracts.task_lifecycle import TaskCompleted, TaskCreated, TaskFailed, TaskStarted
from contracts.trajectory import (
    MAX_STEPS,
    GRPOConfig,
    TrainingCompleted,
    TrainingProgressed,
    TrainingQueued,
    TrainingStarted,
    TrajectoryRecorded,
)
from worker.demo.runs import START, Message, Run, read

__all__ = ["Run", "derived_id", "events", "normalised", "read"]

SOURCE = "/agents/recorded"
AGENT = "recorded-agent"

_MAX_SUMMARY = 500
_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,49}")


def events(runs: Iterable[Run], *, tenant: str = "default") -> Iterator[Event]:
    """The events of these runs, in the order in which they would have been published; the same for every call."""
    ordered = sorted(runs, key=lambda run: run.place)
    if not ordered:
        return
    groups = [list(group) for _, group in groupby(ordered, key=lambda run: run.task_id)]
    job = _Job(ordered, tenant)
    yield from job.begin(groups)
    for number, group in enumerate(groups, 1):
        rewards = [run.reward for run in group]
        for run, scaled in zip(group, normalised(rewards), strict=True):
            yield from _task(run, tenant)
            yield job.trajectory(run, scaled, run.reward - fmean(rewards))
        yield job.progressed(number, group)
    yield job.completed(len(groups))


def normalised(rewards: Sequence[float]) -> list[float]:
    """Rewards of one group with mean 0 and standard deviation 1; all 0 where they do not differ."""
    mean, deviation = fmean(rewards), pstdev(rewards)
    return [(reward - mean) / deviation if deviation else 0.0 for reward in rewards]


def derived_id(time: datetime, *parts: object) -> UUID:
    """A UUIDv7 of this time whose random bits are a digest of the parts."""
    digest = blake2b("/".join(map(str, parts)).encode(), digest_size=10).digest()
    bits = int.from_bytes(digest)
    milliseconds = int(time.timestamp() * 1000)
    value = milliseconds << 80 | 0x7 << 76 | (bits >> 64 & 0xFFF) << 64
    return UUID(int=value | 0b10 << 62 | bits & 0x3FFF_FFFF_FFFF_FFFF)


def _task(run: Run, tenant: str) -> Iterator[Event]:
    """The task that a run is: created, started, every message, and how it ended."""
    task = derived_id(run.begin, "task", *run.place)

    def event(data: EventData, time: datetime, *what: object) -> Event:
        key = derived_id(time, data.event_type, *run.place, *what)
        return data.event(source=SOURCE, tenant=tenant, id=key, time=time)

    created = TaskCreated(
        task_id=task,
        request_text=run.info.task.instruction,
        created_by=run.info.task.user_id,
        type="recorded-run",
        agent_id=AGENT,
        input=run.info.task.model_dump(exclude={"instruction"}),
        metadata={"task": run.task_id, "trial": run.trial},
    )
    yield event(created, run.begin)
    yield event(TaskStarted(task_id=task, agent_id=AGENT), run.begin + timedelta(seconds=1))
    for index, message in enumerate(run.traj):
        yield event(_log(task, index, message), run.time_of(index), index)
    yield event(_ending(task, run), run.end)


def _log(task: UUID, index: int, message: Message) -> ExecutionLogged:
    role = str(message.get("role", ""))
    content = message.get("content")
    summary = content if isinstance(content, str) else ", ".join(_calls(message)) or None
    failed = role == "tool" and isinstance(content, str) and content.startswith("Error")
    return ExecutionLogged(
        task_id=task,
        step_number=index,
        agent_type=role if _SLUG.fullmatch(role) else "unknown",
        action=_action(role, message),
        status="failed" if failed else "completed",
        output_summary=summary[:_MAX_SUMMARY] if summary else summary,
        output_full=message,
    )


def _action(role: str, message: Message) -> str:
    names = [call.partition("(")[0] for call in _calls(message)]
    match role:
        case "system":
            return "gives the rules"
        case "assistant" if names:
            return f"calls {', '.join(names)}"
        case "tool":
            return f"{message.get('name', 'a tool')} returns"
        case _:
            return "says"


def _calls(message: Message) -> list[str]:
    """The tool calls of a message, each as name(arguments)."""
    calls = message.get("tool_calls") or []
    functions = [call.get("function") or {} for call in calls if isinstance(call, dict)]
    return [f"{f.get('name', 'a tool')}({f.get('arguments', '')})" for f in functions]


def _ending(task: UUID, run: Run) -> EventData:
    used = {"messages": len(run.traj), "user_cost_usd": run.cost}
    if run.reward > 0:
        output = {"reward": run.reward, "reward_info": run.info.reward_info}
        return TaskCompleted(task_id=task, output=output, actual_resources=used)
    text = f"the run earned a reward of {run.reward:g}"
    if run.info.reward_info and (why := run.info.reward_info.get("info")):
        text += f": {json.dumps(why, ensure_ascii=False)}"
    return TaskFailed(task_id=task, error_message=text, actual_resources=used)


class _Job:
    """The training job that all runs are."""

    def __init__(self, runs: Sequence[Run], tenant: str) -> None:
        self._runs = runs
        self._tenant = tenant
        self._which = blake2b(str([run.place for run in runs]).encode()).hexdigest()
        self._id = derived_id(START, "job", self._which)

    def begin(self, groups: Sequence[Sequence[Run]]) -> Iterator[Event]:
        """Queued with one query a group, and started."""
        examples: list[Any] = [
            {"query": task.instruction, "expected_outcome": task.model_extra or None}
            for task in (group[0].info.task for group in groups)
        ]
        queued = TrainingQueued(
            job_id=self._id,
            agent_id=AGENT,
            total_iterations=len(groups),
            config=GRPOConfig(
                n_iterations=min(len(groups), 10_000),
                n_trajectories_per_query=min(max(map(len, groups)), 16),
                max_steps_per_trajectory=MAX_STEPS,
            ),
            training_data=examples,
        )
        yield self._event(queued, START)
        yield self._event(TrainingStarted(job_id=self._id), START + timedelta(seconds=1))

    def trajectory(self, run: Run, scaled: float, advantage: float) -> Event:
        """A run as a trajectory, after its task has ended."""
        time = run.end + timedelta(seconds=1)
        data = TrajectoryRecorded(
            job_id=self._id,
            trajectory_id=derived_id(time, "trajectory", self._which, *run.place),
            agent_id=AGENT,
            query=run.info.task.instruction,
            steps=list(_steps(run.traj))[:MAX_STEPS],
            reward=run.reward,
            normalized_reward=scaled,
            advantage=advantage,
            success=run.reward > 0,
        )
        return self._event(data, time, *run.place)

    def progressed(self, number: int, group: Sequence[Run]) -> Event:
        """A group is done."""
        metrics = {
            "mean_reward": fmean(run.reward for run in group),
            "reward_deviation": pstdev([run.reward for run in group]),
        }
        done = TrainingProgressed(
            job_id=self._id,
            current_iteration=number,
            metrics=metrics,
            cost_usd=self._cost(until=group[-1]),
        )
        time = max(run.end for run in group) + timedelta(seconds=2)
        return self._event(done, time, group[0].task_id)

    def completed(self, iterations: int) -> Event:
        """All groups are done."""
        metrics = {"mean_reward": fmean(run.reward for run in self._runs)}
        done = TrainingCompleted(
            job_id=self._id, current_iteration=iterations, metrics=metrics, cost_usd=self._cost()
        )
        return self._event(done, max(run.end for run in self._runs) + timedelta(seconds=3))

    def _cost(self, until: Run | None = None) -> Any:
        """What the runs up to this one cost, to the sixth place."""
        counted = [run for run in self._runs if until is None or run.place <= until.place]
        return round(sum(run.cost for run in counted), 6)

    def _event(self, data: EventData, time: datetime, *what: object) -> Event:
        key = derived_id(time, data.event_type, self._which, *what)
        return data.event(source=SOURCE, tenant=self._tenant, id=key, time=time)


def _steps(messages: Sequence[Message]) -> Iterator[Any]:
    """One step for each message of the assistant, with what came before it and after it."""
    turns = [at for at, message in enumerate(messages) if message.get("role") == "assistant"]
    bounds = [-1, *turns, len(messages)]
    for before, at, after in zip(bounds, turns, bounds[2:], strict=False):
        action = {name: value for name, value in messages[at].items() if name != "role"}
        yield {
            "state": {"messages": list(messages[before + 1 : at])},
            "action": action,
            "result": {"messages": list(messages[at + 1 : after])},
        }
