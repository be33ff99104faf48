"""What agents did, step by step: the facts behind a post-mortem."""

from typing import Annotated, Any, Literal

from pydantic import Field

from contracts.envelope import EventData
from contracts.fields import Count, Key, Milliseconds, Slug, Text, Timestamp
from contracts.registry import ContractFamily


class ExecutionLogged(EventData):
    """An agent did one step of a task. One row in `execution_logs`; log_id is the idempotency key, else the event's id.

    `output_full` is any JSON value: the step's whole output, of the publisher's own making.
    """

    event_type = "execution.logged"
    key_fields = ("log_id",)

    task_id: Key = Field(description="the task")
    step_number: Count = Field(description="which step of the task, from 0")
    agent_type: Slug = Field(
        description="the kind of agent: orchestrator, infra, desktop, code, research, …"
    )
    action: Text = Field(description="what was done, in words")
    status: Literal["running", "completed", "failed"] = Field(description="how the step stands")
    log_id: Key | None = Field(None, description="the entry's own key")
    output_summary: Annotated[str, Field(max_length=500)] | None = Field(
        None, description="the output in short"
    )
    output_full: Any = Field(None, description="the whole output, any JSON value")
    timestamp: Timestamp | None = Field(
        None, description="when it was done; the event's time where absent"
    )
    duration_ms: Milliseconds | None = Field(None, description="how long it took")


FAMILY = ContractFamily("execution-log", ("execution.#",), (ExecutionLogged,))
