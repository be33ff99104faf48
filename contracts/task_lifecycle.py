"""The life of a task: from the request to its end, over any number of attempts.

Every event of this family is first recorded in `lifecycle_events` (its id is the idempotency key) and then merged
into the task's row in `tasks`; `task.depends_on` alone is a fact, one row in `task_dependencies`.
An event may come before `task.created`: its task is then a placeholder until that arrives.
"""

from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from contracts.envelope import EventData
from contracts.fields import Attempt, JsonObject, Key, Name, Positive, Text, or_default
from contracts.registry import ContractFamily

AttemptFromFirst = Annotated[Attempt, or_default(1)]
"""The attempt that an event tells of; 1 where the publisher does not say."""


class TaskCreated(EventData):
    """A task was asked for. Fills the task's row in `tasks`; status `pending`, created_at is the event's time.

    `input` and `parameters` are objects of the publisher's own making: what the task works on, and how.
    `estimated_resources` is an object of amounts by name, such as {"cpu_seconds": 40, "memory_mb": 512, "cost_usd": 0.2}.
    `metadata` is an object of labels for search, such as {"team": "billing", "tags": ["nightly"]}.
    """

    event_type = "task.created"

    task_id: Key = Field(description="the task")
    request_text: Text = Field(description="what was asked for, in words")
    created_by: Name | None = Field(None, description="who asked: a person or an agent")
    project_id: Key | None = Field(None, description="the project that the task belongs to")
    parent_task_id: Key | None = Field(None, description="the task that this one is a part of")
    type: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(
        None, description="the kind of task, such as deploy or research"
    )
    priority: Annotated[int, Field(ge=1, le=10), or_default(5)] = Field(
        5, description="urgency, 10 is the highest"
    )
    input: JsonObject | None = Field(None, description="what the task works on")
    parameters: JsonObject | None = Field(None, description="how it is to be done")
    estimated_resources: JsonObject | None = Field(None, description="expected amounts by name")
    max_retries: Annotated[int, Field(ge=0, le=2**31 - 1), or_default(3)] = Field(
        3, description="how often it may be tried again"
    )
    timeout_seconds: Annotated[Positive, or_default(300)] = Field(
        300, description="how long an attempt may take"
    )
    agent_id: Name | None = Field(None, description="the agent that is to do it")
    metadata: JsonObject | None = Field(None, description="labels for search")


class TaskApproved(EventData):
    """A task was approved. Status `approved`, approved_at is the event's time.

    `by` and `reason` stay in `lifecycle_events.data`.
    """

    event_type = "task.approved"

    task_id: Key = Field(description="the task")
    by: Name | None = Field(None, description="who approved it")
    reason: Text | None = Field(None, description="why")


class TaskRejected(EventData):
    """A task was turned down. Status `rejected`; sets completed_at only where it is empty.

    Without an attempt it ends the task, whatever attempts there are. `by` and `reason` stay in `lifecycle_events.data`.
    """

    event_type = "task.rejected"

    task_id: Key = Field(description="the task")
    by: Name | None = Field(None, description="who turned it down")
    reason: Text | None = Field(None, description="why")
    attempt: Attempt | None = Field(None, description="the attempt it ends; all where absent")


class TaskStarted(EventData):
    """An agent began to work on a task. Status `executing`, started_at is the event's time."""

    event_type = "task.started"

    task_id: Key = Field(description="the task")
    agent_id: Name | None = Field(None, description="the agent that does it")
    attempt: AttemptFromFirst = Field(1, description="which attempt this is")


class TaskCompleted(EventData):
    """A task was done. Status `completed`, completed_at is the event's time.

    `output` is any JSON value: the result, of the publisher's own making.
    `actual_resources` is an object of amounts by name, such as {"cpu_seconds": 37.5, "memory_mb": 480}.
    `external_ai_used` is an object about the external AI that helped: {"model": "…", "tokens": 5120, "cost": 0.031};
    more members are welcome.
    """

    event_type = "task.completed"

    task_id: Key = Field(description="the task")
    output: Any = Field(None, description="the result, any JSON value")
    actual_resources: JsonObject | None = Field(None, description="amounts used, by name")
    external_ai_used: JsonObject | None = Field(None, description="model, tokens, cost")
    attempt: AttemptFromFirst = Field(1, description="which attempt this was")


class TaskFailed(EventData):
    """An attempt of a task failed. Status `failed`, completed_at is the event's time.

    `actual_resources` and `external_ai_used` are objects as in `task.completed`.
    """

    event_type = "task.failed"

    task_id: Key = Field(description="the task")
    error_message: Text = Field(description="what went wrong")
    attempt: AttemptFromFirst = Field(1, description="which attempt this was")
    actual_resources: JsonObject | None = Field(None, description="amounts used, by name")
    external_ai_used: JsonObject | None = Field(None, description="model, tokens, cost")


class TaskRetrying(EventData):
    """A task is tried again. Status `retrying`; empties what belonged to the attempt before; retry_count = attempt - 1."""

    event_type = "task.retrying"

    task_id: Key = Field(description="the task")
    attempt: Attempt = Field(description="the new attempt")


class TaskCancelled(EventData):
    """A task was called off. Status `cancelled`; sets completed_at only where it is empty.

    Without an attempt it ends the task, whatever attempts there are. `by` and `reason` stay in `lifecycle_events.data`.
    """

    event_type = "task.cancelled"

    task_id: Key = Field(description="the task")
    by: Name | None = Field(None, description="who called it off")
    reason: Text | None = Field(None, description="why")
    attempt: Attempt | None = Field(None, description="the attempt it ends; all where absent")


class TaskDependsOn(EventData):
    """A task waits for another one. One row in `task_dependencies`; the pair of tasks is the idempotency key."""

    event_type = "task.depends_on"
    key_fields = ("task_id", "depends_on_task_id")

    task_id: Key = Field(description="the task that waits")
    depends_on_task_id: Key = Field(description="the task that it waits for")
    dependency_type: Annotated[
        str, Field(min_length=1, max_length=50), or_default("sequential")
    ] = Field("sequential", description="how they depend")

    @model_validator(mode="after")
    def _not_itself(self) -> Self:
        if self.task_id == self.depends_on_task_id:
            raise PydanticCustomError("task_depends_on_itself", "a task must not depend on itself")
        return self


FAMILY = ContractFamily(
    "task-lifecycle",
    ("task.#",),
    (
        TaskCreated,
        TaskApproved,
        TaskRejected,
        TaskStarted,
        TaskCompleted,
        TaskFailed,
        TaskRetrying,
        TaskCancelled,
        TaskDependsOn,
    ),
)
