"""What a run leaves behind: checkpoints, messages, costs, branches, files; contracts of the family `workflow`.

Each is a fact of a run, which may come before the run itself does.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from contracts.envelope import EventData
from contracts.fields import (
    ClaimCheck,
    Cost,
    Count,
    JsonObject,
    Key,
    Name,
    ShortName,
    Size,
    Text,
    Timestamp,
)
from contracts.limits import INT64_MAX


class CheckpointSaved(EventData):
    """A run saved where it stands, to be restored from. One row in `checkpoints`.

    The idempotency key is checkpoint_id, else the event's id. At least one of context_snapshot and
    context_snapshot_ref is given.
    `context_snapshot` is an object of the publisher's own making, and plain JSON: all that the run needs to go on.
    `metadata` is an object of labels.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": [name], "properties": {name: {"type": "object"}}}
                for name in ("context_snapshot", "context_snapshot_ref")
            ]
        }
    )

    event_type = "checkpoint.saved"
    key_fields = ("checkpoint_id",)

    run_id: Key = Field(description="the run")
    session_id: Key = Field(description="the workspace that it belongs to")
    checkpoint_type: Literal["step_complete", "timed", "manual", "error", "emergency"] = Field(
        description="what made the run save it"
    )
    checkpoint_id: Key | None = Field(None, description="the checkpoint's own key")
    step_id: Key | None = Field(None, description="the step that it was saved in")
    context_snapshot: JsonObject | None = Field(None, description="all that is needed to go on")
    context_snapshot_ref: ClaimCheck | None = Field(
        None, description="where it lies, where it is too large for a message"
    )
    metadata: JsonObject | None = Field(None, description="labels")

    @model_validator(mode="after")
    def _has_a_snapshot(self) -> Self:
        if self.context_snapshot is None and self.context_snapshot_ref is None:
            raise PydanticCustomError(
                "snapshot_missing",
                "at least one of context_snapshot and context_snapshot_ref must be given",
            )
        return self


class MessageSent(EventData):
    """An agent told another one something. One row in `messages`; message_id is the idempotency key, else the event's id.

    `metadata` is an object of labels of the publisher's own making.
    """

    event_type = "message.sent"
    key_fields = ("message_id",)

    run_id: Key = Field(description="the run")
    session_id: Key = Field(description="the workspace that it belongs to")
    sender: ShortName = Field(description="who told it")
    recipient: ShortName = Field(description="to whom")
    content: str = Field(description="what was said; may be empty")
    message_id: Key | None = Field(None, description="the message's own key")
    step_id: Key | None = Field(None, description="the step that it was said in")
    content_ref: ClaimCheck | None = Field(
        None, description="where the whole content lies, where it is too large for a message"
    )
    timestamp: Timestamp | None = Field(
        None, description="when it was said; the event's time where absent"
    )
    tokens: Count | None = Field(None, description="how many tokens it is")
    metadata: JsonObject | None = Field(None, description="labels")


def _sum_of_tokens(value: Any, info: ValidationInfo) -> Any:
    """Prompt and completion together, where the publisher does not say."""
    if value is not None:
        return value
    return info.data.get("prompt_tokens", 0) + info.data.get("completion_tokens", 0)


class CostRecorded(EventData):
    """A call of a language model was paid for. One row in `cost_records`; cost_id is the idempotency key, else the event's id."""

    event_type = "cost.recorded"
    key_fields = ("cost_id",)

    run_id: Key = Field(description="the run")
    session_id: Key = Field(description="the workspace that it belongs to")
    model: ShortName = Field(description="the model that was called")
    prompt_tokens: Count = Field(description="tokens that went in")
    completion_tokens: Count = Field(description="tokens that came out")
    cost_usd: Cost = Field(description="the price")
    cost_id: Key | None = Field(None, description="the record's own key")
    step_id: Key | None = Field(None, description="the step that called it")
    total_tokens: Annotated[
        Annotated[int, Field(ge=0, le=INT64_MAX)], BeforeValidator(_sum_of_tokens)
    ] = Field(
        None,
        validate_default=True,
        description="all tokens of the call; the sum of the two where absent",
    )
    timestamp: Timestamp | None = Field(
        None, description="when it was called; the event's time where absent"
    )


class BranchCreated(EventData):
    """A run was tried another way from some step on. One row in `branches`; branch_id is the idempotency key, else the event's id.

    `metadata` is an object of labels of the publisher's own making.
    """

    event_type = "branch.created"
    key_fields = ("branch_id",)

    parent_run_id: Key = Field(description="the run that it leaves")
    child_run_id: Key = Field(description="the run that goes the other way")
    session_id: Key = Field(description="the workspace that both belong to")
    branch_name: Name = Field(description="what people call it")
    branch_id: Key | None = Field(None, description="the branch's own key")
    parent_step_id: Key | None = Field(None, description="the step after which it leaves")
    hypothesis: Text | None = Field(None, description="what is to be found out")
    metadata: JsonObject | None = Field(None, description="labels")

    @model_validator(mode="after")
    def _not_itself(self) -> Self:
        if self.parent_run_id == self.child_run_id:
            raise PydanticCustomError("branch_of_itself", "a run must not branch into itself")
        return self


class FileRecorded(EventData):
    """A run made a file. One row in `files`; file_id is the idempotency key, else the event's id.

    `metadata` is an object of labels, such as {"sha256": "…"}.
    """

    event_type = "file.recorded"
    key_fields = ("file_id",)

    run_id: Key = Field(description="the run")
    session_id: Key = Field(description="the workspace that it belongs to")
    file_path: Annotated[str, Field(min_length=1, max_length=1000)] = Field(
        description="where it lies"
    )
    file_type: Literal["code", "data", "plot", "log", "other"] = Field(description="what it holds")
    file_id: Key | None = Field(None, description="the file's own key")
    step_id: Key | None = Field(None, description="the step that made it")
    size_bytes: Size | None = Field(None, description="how large it is")
    metadata: JsonObject | None = Field(None, description="labels")
