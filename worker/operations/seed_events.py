"""The events of each seed: development shows tasks in every state, test is one of everything, production one trace.

Promises the same ids in every run and every database: what is there already is a duplicate. An event's id is made from
what it says, so that a seed which a later version changes adds events and contradicts none. Types that nothing here
names come from contracts/examples, so that a new family is seeded without an edit.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from uuid import UUID

import orjson

from contracts.envelope import Event, EventData
from contracts.example_files import examples
from contracts.execution_log import ExecutionLogged
from contracts.registry import contract_types
from contracts.task_lifecycle import (
    TaskApproved,
    TaskCancelled,
    TaskCompleted,
    TaskCreated,
    TaskDependsOn,
    TaskFailed,
    TaskRejected,
    TaskRetrying,
    TaskStarted,
)

SOURCE = "/seed/"
"""What the source of every seeded event begins with."""

_OWN_FAMILIES = frozenset({"task-lifecycle", "execution-log"})
"""Families of which development has events of its own, and so none of the examples."""

_MONTH = 0x01A1_9467_E800 << 80
"""Keys begin with the first moment of November 2026, so that they lie in one partition wherever there is one."""

_AGENTS = ("orchestrator", "infra", "code", "research")


def _key(*parts: object) -> UUID:
    """A UUIDv7 that is the same in every run."""
    digest = int.from_bytes(blake2b(orjson.dumps([str(part) for part in parts])).digest()[:9])
    return UUID(int=_MONTH | 0x7 << 76 | 0b10 << 62 | digest & 0x3FFF_FFFF_FFFF_FFFF)


@dataclass(frozen=True)
class Seed:
    """What is stored: events that have to be, and examples, some of which may contradict others."""

    events: list[Event]
    examples: list[Event]


class _Story:
    """Events of one seed, each some hours before now."""

    def __init__(self, seed: str, tenant: str) -> None:
        self.events: list[Event] = []
        self._seed = seed
        self._tenant = tenant
        self._now = datetime.now(UTC)

    def tell(self, hours_ago: float, data: EventData) -> None:
        """Add an event."""
        text = data.model_dump_json(exclude_unset=True)
        self.events.append(
            data.event(
                source=f"{SOURCE}{self._seed}",
                tenant=self._tenant,
                id=_key(self._seed, data.event_type, text),
                time=self._now - timedelta(hours=hours_ago),
            )
        )

    def steps(self, task: UUID, hours_ago: float, actions: str, last: str = "completed") -> None:
        """One log entry for each of these actions; the last one stands as `last`."""
        names = actions.split(", ")
        for number, action in enumerate(names):
            ends = number == len(names) - 1
            self.tell(
                hours_ago - number / 60,
                ExecutionLogged(
                    task_id=task,
                    step_number=number,
                    agent_type=_AGENTS[number % len(_AGENTS)],
                    action=action,
                    status=last if ends else "completed",  # type: ignore[arg-type]
                    output_summary=f"{action}: {last if ends else 'done'}",
                    duration_ms=250 * (number + 1),
                ),
            )


def _development(tenant: str) -> Seed:
    """Eight tasks, one in every state, with their logs; of everything else the examples."""
    story = _Story("dev", tenant)
    names = ("pending", "approved", "executing", "completed", "failed", "rejected", "cancelled", "retrying")  # fmt: skip
    wishes = ("Draft the release notes", "Rotate the certificates", "Build a replica of the billing database",
              "Summarise the incident of last week", "Move the archive to cold storage", "Delete all old branches",
              "Index the wiki", "Fetch the exchange rates")  # fmt: skip
    task = {name: _key("dev", "task", name) for name in names}
    for number, (name, wish) in enumerate(zip(names, wishes, strict=True)):
        story.tell(
            48 - number,
            TaskCreated(
                task_id=task[name],
                request_text=wish,
                created_by="grace@example.org",
                type=("report", "infrastructure")[number % 2],
                priority=number + 1,
                parent_task_id=task["completed"] if name == "pending" else None,
                estimated_resources={"cpu_seconds": 10 * (number + 1)},
                metadata={"team": ("docs", "platform")[number % 2]},
            ),
        )
    _middle(story, task)
    _ends(story, task)
    return Seed(story.events, list(_examples(tenant, "dev", without=_OWN_FAMILIES)))


def _middle(story: _Story, task: Mapping[str, UUID]) -> None:
    """Tasks that are on their way."""
    story.tell(30, TaskApproved(task_id=task["approved"], by="ada@example.org"))
    story.tell(6, TaskStarted(task_id=task["executing"], agent_id="infra-1"))
    story.steps(task["executing"], 6, "plan, take a snapshot, copy tables, build indexes, catch up", last="running")  # fmt: skip
    story.tell(8, TaskStarted(task_id=task["retrying"], agent_id="research-1"))
    story.steps(task["retrying"], 8, "look up the source, ask it, read the answer, check the rates", last="failed")  # fmt: skip
    story.tell(7, TaskFailed(task_id=task["retrying"], error_message="the source was away"))
    story.tell(5, TaskRetrying(task_id=task["retrying"], attempt=2))
    depends = TaskDependsOn(task_id=task["pending"], depends_on_task_id=task["executing"])
    story.tell(40, depends)


def _ends(story: _Story, task: Mapping[str, UUID]) -> None:
    """Tasks that have ended."""
    model = {"model": "example-large", "tokens": 5120, "cost": 0.031}
    story.tell(29, TaskStarted(task_id=task["completed"], agent_id="research-1"))
    story.steps(task["completed"], 29, "read the log, order by time, find the cause, write, review, publish")  # fmt: skip
    done = TaskCompleted(
        task_id=task["completed"],
        output={"pages": 2},
        actual_resources={"cpu_seconds": 37.5, "memory_mb": 480},
        external_ai_used=model,
    )
    story.tell(27, done)
    story.tell(26, TaskStarted(task_id=task["failed"], agent_id="infra-1"))
    story.steps(task["failed"], 26, "list files, compress, upload, verify", last="failed")
    failed = TaskFailed(
        task_id=task["failed"],
        error_message="the bucket refused the upload: quota exceeded",
        actual_resources={"cpu_seconds": 12},
    )
    story.tell(25, failed)
    story.tell(24, TaskRejected(task_id=task["rejected"], by="ada@example.org", reason="too much"))
    story.tell(20, TaskStarted(task_id=task["cancelled"], agent_id="code-1"))
    story.steps(task["cancelled"], 20, "open the wiki, read pages")
    story.tell(19, TaskCancelled(task_id=task["cancelled"], reason="the wiki is moved first"))


def _test(tenant: str) -> Seed:
    """Every valid example of every type: a few rows in every table, always the same."""
    return Seed([], list(_examples(tenant, "test")))


def _production(tenant: str) -> Seed:
    """One completed task with one step: that the way into the tables and out of the reports works."""
    story = _Story("prod", tenant)
    task = _key("prod", "task", "installation")
    story.tell(
        0.003, TaskCreated(task_id=task, request_text="Check the installation", type="check")
    )
    story.tell(0.002, TaskStarted(task_id=task, agent_id="worker"))
    story.steps(task, 0.001, "store an event of each kind")
    story.tell(0, TaskCompleted(task_id=task))
    return Seed(story.events, [])


def _examples(tenant: str, seed: str, without: frozenset[str] = frozenset()) -> Iterator[Event]:
    """The valid examples of every registered type."""
    for example in examples():
        family, _ = contract_types().get(example.type, (None, None))
        if example.valid and family is not None and family.name not in without:
            event = {**example.event, "tenantid": tenant, "source": f"{SOURCE}{seed}"}
            yield Event.model_validate_json(orjson.dumps(event))


SEEDS: Mapping[str, Callable[[str], Seed]] = {
    "dev": _development,
    "test": _test,
    "prod": _production,
}
"""What each seed stores for a tenant."""
