"""The steps of a run, and the decisions that people make about them: contracts of the family `workflow`."""

from typing import Annotated, Literal

from pydantic import Field

from contracts.envelope import EventData
from contracts.fields import (
    ClaimCheck,
    Count,
    JsonObject,
    Key,
    Percentage,
    ShortName,
    Text,
    or_default,
)


class StepCreated(EventData):
    """A run was given a step. Fills its row in `workflow_steps`; status `pending`.

    `inputs` is an object of the publisher's own making: what the step works on.
    `metadata` is an object of labels.
    """

    event_type = "step.created"

    step_id: Key = Field(description="the step")
    run_id: Key = Field(description="the run that it belongs to")
    session_id: Key = Field(description="the workspace that it belongs to")
    step_number: Count = Field(description="its place in the run, from 0")
    agent: ShortName | None = Field(None, description="the agent that is to do it")
    inputs: JsonObject | None = Field(None, description="what it works on")
    metadata: JsonObject | None = Field(None, description="labels")


class StepStarted(EventData):
    """An agent began a step. Status `running`, started_at is the event's time.

    `inputs` is an object as in `step.created`.
    """

    event_type = "step.started"

    step_id: Key = Field(description="the step")
    agent: ShortName | None = Field(None, description="the agent that does it")
    inputs: JsonObject | None = Field(None, description="what it works on")


class StepProgressed(EventData):
    """A step came further. Sets the members that are given, and no status.

    `outputs` is an object of the publisher's own making: what the step has so far.
    """

    event_type = "step.progressed"

    step_id: Key = Field(description="the step")
    progress_percentage: Percentage = Field(description="how far it is, in per cent")
    outputs: JsonObject | None = Field(None, description="what it has so far")


class StepPaused(EventData):
    """A step was halted for a while. Status `paused`. `reason` stays in `lifecycle_events.data`."""

    event_type = "step.paused"

    step_id: Key = Field(description="the step")
    reason: Text | None = Field(None, description="why")


class StepWaitingApproval(EventData):
    """A step waits for a person's decision. Status `waiting_approval`."""

    event_type = "step.waiting_approval"

    step_id: Key = Field(description="the step")


class StepResumed(EventData):
    """A step goes on after a pause or a decision. Status `running`."""

    event_type = "step.resumed"

    step_id: Key = Field(description="the step")


class StepCompleted(EventData):
    """A step was done. Status `completed`, completed_at is the event's time.

    `outputs` is an object of the publisher's own making: what came of the step.
    """

    event_type = "step.completed"

    step_id: Key = Field(description="the step")
    outputs: JsonObject | None = Field(None, description="what came of it")
    progress_percentage: Annotated[Percentage, or_default(100)] = Field(
        100, description="how far it got, in per cent"
    )


class StepFailed(EventData):
    """A step failed. Status `failed`, completed_at is the event's time.

    `outputs` is an object of the publisher's own making: what the step had until then.
    """

    event_type = "step.failed"

    step_id: Key = Field(description="the step")
    error_message: Text = Field(description="what went wrong")
    outputs: JsonObject | None = Field(None, description="what it had until then")


class StepSkipped(EventData):
    """A step was left out. Status `skipped`, completed_at is the event's time. `reason` stays in `lifecycle_events.data`."""

    event_type = "step.skipped"

    step_id: Key = Field(description="the step")
    reason: Text | None = Field(None, description="why")


class ApprovalRequested(EventData):
    """A person was asked to decide. Fills a row in `approval_requests`; status `pending`, requested_at is the event's time.

    `context_snapshot` is an object of the publisher's own making: what the person needs to know.
    """

    event_type = "approval.requested"

    approval_id: Key = Field(description="the request")
    run_id: Key = Field(description="the run that waits")
    session_id: Key = Field(description="the workspace that it belongs to")
    step_id: Key | None = Field(None, description="the step that waits")
    context_snapshot: JsonObject | None = Field(None, description="what there is to decide on")
    context_snapshot_ref: ClaimCheck | None = Field(
        None, description="where it lies, where it is too large for a message"
    )


class ApprovalResolved(EventData):
    """A person has decided. The status is the decision, resolved_at the event's time; of several the latest counts."""

    event_type = "approval.resolved"

    approval_id: Key = Field(description="the request")
    status: Literal["approved", "rejected", "modified"] = Field(description="the decision")
    user_feedback: Text | None = Field(None, description="what the person said")
    resolution: Annotated[str, Field(min_length=1, max_length=50)] | None = Field(
        None, description="what became of it, in a word, such as continue or abort"
    )
