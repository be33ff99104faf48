"""Workspaces, their projects and the runs in them: contracts of the family `workflow`.

A workspace is a row of `sessions`: the scope beyond which nothing of this family reads.
"""

from typing import Annotated, Literal

from pydantic import Field

from contracts.envelope import EventData
from contracts.fields import (
    DecimalNumber,
    JsonObject,
    Key,
    Name,
    Positive,
    ShortName,
    Text,
    Timestamp,
    or_default,
)

Mode = Literal["one_shot", "planning_control", "deep_research"]
"""How a run goes about its task."""


class WorkspaceCreated(EventData):
    """A workspace was opened. Fills its row in `sessions`; status `active`, last_active_at is the event's time.

    `metadata` is an object of labels of the publisher's own making, such as {"team": "cosmology"}.
    `resource_limits` is an object of limits by name, such as {"max_cost_usd": 20, "max_runs": 5}.
    """

    event_type = "workspace.created"

    session_id: Key = Field(description="the workspace")
    name: Name = Field(description="what people call it")
    user_id: Name | None = Field(None, description="whose it is")
    metadata: JsonObject | None = Field(None, description="labels")
    resource_limits: JsonObject | None = Field(None, description="limits by name")


class WorkspaceUpdated(EventData):
    """A workspace was changed. Sets the members that are given, and last_active_at to the event's time.

    `metadata` and `resource_limits` are objects as in `workspace.created`; each replaces the last one whole.
    """

    event_type = "workspace.updated"

    session_id: Key = Field(description="the workspace")
    name: Name | None = Field(None, description="its new name")
    metadata: JsonObject | None = Field(None, description="labels")
    resource_limits: JsonObject | None = Field(None, description="limits by name")


class WorkspaceHeartbeat(EventData):
    """Somebody is at work in a workspace. Sets last_active_at to the event's time."""

    event_type = "workspace.heartbeat"

    session_id: Key = Field(description="the workspace")


class WorkspaceArchived(EventData):
    """A workspace was put aside. Status `archived`; the later of this and `workspace.restored` counts.

    `reason` stays in `lifecycle_events.data`.
    """

    event_type = "workspace.archived"

    session_id: Key = Field(description="the workspace")
    reason: Text | None = Field(None, description="why")


class WorkspaceRestored(EventData):
    """An archived workspace was taken up again. Status `active`, last_active_at is the event's time."""

    event_type = "workspace.restored"

    session_id: Key = Field(description="the workspace")


class WorkspaceDeleted(EventData):
    """A workspace was given up. Status `deleted`, for good; the rows stay until they are erased.

    `reason` stays in `lifecycle_events.data`.
    """

    event_type = "workspace.deleted"

    session_id: Key = Field(description="the workspace")
    reason: Text | None = Field(None, description="why")


class ProjectCreated(EventData):
    """A project was begun in a workspace. Fills its row in `projects`.

    `metadata` is an object of labels of the publisher's own making.
    """

    event_type = "project.created"

    project_id: Key = Field(description="the project")
    session_id: Key = Field(description="the workspace that it belongs to")
    name: Name = Field(description="what people call it")
    description: Text | None = Field(None, description="what it is for")
    metadata: JsonObject | None = Field(None, description="labels")


class ProjectUpdated(EventData):
    """A project was changed. Sets the members that are given.

    `metadata` is an object of labels; it replaces the last one whole.
    """

    event_type = "project.updated"

    project_id: Key = Field(description="the project")
    name: Name | None = Field(None, description="its new name")
    description: Text | None = Field(None, description="what it is for")
    metadata: JsonObject | None = Field(None, description="labels")


class RunCreated(EventData):
    """A run was asked for. Fills its row in `workflow_runs`; status `draft`, created_at is the event's time.

    `metadata` is an object of labels of the publisher's own making.
    """

    event_type = "run.created"

    run_id: Key = Field(description="the run")
    session_id: Key = Field(description="the workspace that it belongs to")
    mode: Mode = Field(description="how it goes about its task")
    project_id: Key | None = Field(None, description="the project that it belongs to")
    agent: ShortName | None = Field(None, description="the agent that leads it")
    model: ShortName | None = Field(None, description="the language model that it uses")
    checkpoint_frequency_minutes: Annotated[Positive, or_default(10)] = Field(
        10, description="minutes between two timed checkpoints"
    )
    task_description: Text | None = Field(None, description="what it is to do, in words")
    metadata: JsonObject | None = Field(None, description="labels")


class RunPlanning(EventData):
    """A run makes its plan. Status `planning`."""

    event_type = "run.planning"

    run_id: Key = Field(description="the run")


class RunStarted(EventData):
    """A run began to carry out its plan. Status `executing`, started_at is the event's time."""

    event_type = "run.started"

    run_id: Key = Field(description="the run")
    agent: ShortName | None = Field(None, description="the agent that leads it")
    model: ShortName | None = Field(None, description="the language model that it uses")


class RunPaused(EventData):
    """A run was halted for a while. Status `paused`. `reason` stays in `lifecycle_events.data`."""

    event_type = "run.paused"

    run_id: Key = Field(description="the run")
    reason: Text | None = Field(None, description="why")


class RunWaitingApproval(EventData):
    """A run waits for a person's decision. Status `waiting_approval`."""

    event_type = "run.waiting_approval"

    run_id: Key = Field(description="the run")


class RunResumed(EventData):
    """A run goes on after a pause or a decision. Status `executing`."""

    event_type = "run.resumed"

    run_id: Key = Field(description="the run")


class RunHeartbeat(EventData):
    """A run is alive. Sets last_heartbeat_at to the event's time."""

    event_type = "run.heartbeat"

    run_id: Key = Field(description="the run")


class RunCompleted(EventData):
    """A run ended well. Status `completed`, completed_at is the event's time.

    `metadata` is an object of labels; it replaces the last one whole.
    """

    event_type = "run.completed"

    run_id: Key = Field(description="the run")
    metadata: JsonObject | None = Field(None, description="labels")


class RunFailed(EventData):
    """A run failed. Status `failed`, completed_at is the event's time. `error_message` stays in `lifecycle_events.data`."""

    event_type = "run.failed"

    run_id: Key = Field(description="the run")
    error_message: Text = Field(description="what went wrong")


class RunMeasured(EventData):
    """A figure of a run was taken. One row in `workflow_metrics`; measurement_id is the idempotency key, else the event's id.

    `metadata` is an object of labels, such as {"unit": "ms"}.
    """

    event_type = "run.measured"
    key_fields = ("measurement_id",)

    run_id: Key = Field(description="the run")
    session_id: Key = Field(description="the workspace that it belongs to")
    metric_name: ShortName = Field(description="what was measured")
    metric_value: DecimalNumber = Field(description="the figure")
    measurement_id: Key | None = Field(None, description="the measurement's own key")
    step_id: Key | None = Field(None, description="the step that it was taken in")
    timestamp: Timestamp | None = Field(
        None, description="when it was taken; the event's time where absent"
    )
    metadata: JsonObject | None = Field(None, description="labels")
