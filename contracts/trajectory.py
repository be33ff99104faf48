"""Training by reinforcement: jobs, the trajectories that they collect, the policies that they save.

`training.*` events are first recorded in `lifecycle_events` (their id is the idempotency key) and then merged into
the job's row in `training_jobs`. A trajectory and a checkpoint are facts of that job, which may come before it.
"""

from typing import Annotated, Any, NotRequired, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from contracts.envelope import EventData
from contracts.fields import (
    Count,
    JsonObject,
    Key,
    Milliseconds,
    Money,
    Name,
    Positive,
    Real,
    Text,
    Timestamp,
    or_default,
)
from contracts.limits import INT32_MAX
from contracts.registry import ContractFamily

MAX_STEPS = 100
"""Most steps of one trajectory."""

_closed = ConfigDict(extra="forbid", strict=True, ser_json_inf_nan="constants")


class TrajectoryStep(TypedDict):
    """One step of a trajectory: what was seen, what was done, what came of it."""

    __pydantic_config__ = _closed  # type: ignore[misc] # pydantic reads it, it is no member of a step

    state: Annotated[JsonObject, Field(description="what the agent saw; open")]
    action: Annotated[JsonObject, Field(description="what it did; open")]
    result: Annotated[JsonObject, Field(description="what came of it; open")]
    timestamp: NotRequired[Annotated[Timestamp | None, Field(description="when")]]
    duration_ms: NotRequired[Annotated[Milliseconds | None, Field(description="how long it took")]]


class TrainingExample(TypedDict):
    """One query to train on."""

    __pydantic_config__ = _closed  # type: ignore[misc] # as above

    query: Annotated[Text, Field(description="what the agent is asked")]
    expected_outcome: NotRequired[Annotated[Any, Field(description="any JSON value")]]


class GRPOConfig(BaseModel):
    """The settings of a training job (group relative policy optimisation); each has a default."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, ser_json_inf_nan="constants"
    )

    n_iterations: Annotated[int, Field(ge=1, le=10_000), or_default(1000)] = Field(
        1000, description="iterations to run"
    )
    batch_size: Annotated[int, Field(ge=1, le=128), or_default(16)] = Field(
        16, description="queries of an iteration"
    )
    n_trajectories_per_query: Annotated[int, Field(ge=1, le=16), or_default(8)] = Field(
        8, description="size of a group"
    )
    learning_rate: Annotated[float, Field(gt=0, le=1), or_default(1e-4)] = Field(
        1e-4, description="step of the optimiser"
    )
    max_budget_usd: Annotated[float, Field(ge=0, allow_inf_nan=False), or_default(100.0)] = Field(
        100.0, description="cost at which the job stops"
    )
    checkpoint_interval: Annotated[int, Field(ge=1, le=INT32_MAX), or_default(10)] = Field(
        10, description="iterations between two checkpoints"
    )
    max_steps_per_trajectory: Annotated[int, Field(ge=1, le=100), or_default(20)] = Field(
        20, description="steps at which a trajectory ends"
    )
    gamma: Annotated[float, Field(ge=0, le=1), or_default(0.99)] = Field(
        0.99, description="discount of later rewards"
    )


class TrajectoryRecorded(EventData):
    """An agent ran one query to its end and was rewarded. One row in `trajectories`.

    The idempotency key is trajectory_id, else the event's id.
    `steps` is a list of at most 100 objects {"state": {…}, "action": {…}, "result": {…}, "timestamp"?, "duration_ms"?};
    state, action and result are objects of the publisher's own making; a step has no other members.
    """

    event_type = "trajectory.recorded"
    key_fields = ("trajectory_id",)

    job_id: Key = Field(description="the training job")
    agent_id: Name = Field(description="the agent that acted")
    query: Text = Field(description="what it was asked")
    reward: Real = Field(description="what it earned")
    trajectory_id: Key | None = Field(None, description="the trajectory's own key")
    steps: Annotated[list[TrajectoryStep], Field(max_length=MAX_STEPS)] | None = Field(
        None, description="what it did, in order"
    )
    normalized_reward: Real | None = Field(None, description="the reward, scaled over its group")
    advantage: Real | None = Field(None, description="how much better than its group")
    execution_time_ms: Milliseconds | None = Field(None, description="how long it took")
    success: bool | None = Field(None, description="whether it reached its goal")
    created_at: Timestamp | None = Field(
        None, description="when it was recorded; the event's time where absent"
    )


class TrainingQueued(EventData):
    """A training job was asked for. Fills the job's row in `training_jobs`; status `queued`, created_at is the event's time.

    `config` is GRPOConfig: an object of n_iterations 1..10000 (1000), batch_size 1..128 (16),
    n_trajectories_per_query 1..16 (8), learning_rate above 0 to 1 (1e-4), max_budget_usd from 0 (100.00),
    checkpoint_interval from 1 (10), max_steps_per_trajectory 1..100 (20), gamma 0..1 (0.99); in brackets what counts
    where a member is absent.
    `training_data` is a list of {"query": "…", "expected_outcome": any JSON value}; a hundred or more are advised.
    """

    event_type = "training.queued"

    job_id: Key = Field(description="the training job")
    agent_id: Name = Field(description="the agent to train")
    total_iterations: Positive = Field(description="how many iterations it is to run")
    config: GRPOConfig | None = Field(None, description="settings, each with a default")
    training_data: list[TrainingExample] | None = Field(None, description="queries to train on")
    budget_usd: Money | None = Field(None, description="what it may cost")


class TrainingStarted(EventData):
    """A training job began to run. Status `running`, started_at is the event's time."""

    event_type = "training.started"

    job_id: Key = Field(description="the training job")


class TrainingProgressed(EventData):
    """A training job came further. Sets the members that are given.

    `metrics` is an object of numbers by name, such as {"mean_reward": 0.71, "kl": 0.02}; the newest replaces the last.
    `cost_usd` is the whole cost so far, never an increment.
    """

    event_type = "training.progressed"

    job_id: Key = Field(description="the training job")
    current_iteration: Count = Field(description="the iteration it has reached")
    metrics: JsonObject | None = Field(None, description="figures by name")
    cost_usd: Money | None = Field(None, description="the whole cost so far")


class TrainingCompleted(EventData):
    """A training job ended well. Status `completed`, completed_at is the event's time.

    `metrics` is an object of numbers by name, as in `training.progressed`.
    """

    event_type = "training.completed"

    job_id: Key = Field(description="the training job")
    current_iteration: Count | None = Field(None, description="the iteration it has reached")
    metrics: JsonObject | None = Field(None, description="figures by name")
    cost_usd: Money | None = Field(None, description="the whole cost")
    best_checkpoint_id: Key | None = Field(None, description="the checkpoint to use")


class TrainingFailed(EventData):
    """A training job failed. Status `failed`, completed_at is the event's time."""

    event_type = "training.failed"

    job_id: Key = Field(description="the training job")
    error_message: Annotated[str, Field(min_length=1, max_length=1000)] = Field(
        description="what went wrong"
    )
    cost_usd: Money | None = Field(None, description="the whole cost")


class TrainingCancelled(EventData):
    """A training job was called off. Status `cancelled`; sets completed_at only where it is empty.

    `reason` stays in `lifecycle_events.data`.
    """

    event_type = "training.cancelled"

    job_id: Key = Field(description="the training job")
    reason: Text | None = Field(None, description="why")


class PolicyCheckpointSaved(EventData):
    """A training job saved its policy. One row in `policy_checkpoints`.

    The idempotency key is checkpoint_id, else the event's id. At least one of policy_data and policy_s3_path is given.
    `policy_data` is an object of the publisher's own making: the policy itself, where it is small.
    `metrics` is an object of numbers by name, such as {"validation_reward": 0.83}.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["policy_data"], "properties": {"policy_data": {"type": "object"}}},
                {
                    "required": ["policy_s3_path"],
                    "properties": {"policy_s3_path": {"type": "string"}},
                },
            ]
        }
    )

    event_type = "policy.checkpoint_saved"
    key_fields = ("checkpoint_id",)

    job_id: Key = Field(description="the training job")
    agent_id: Name = Field(description="the agent that is trained")
    iteration: Count = Field(description="the iteration it was saved at")
    checkpoint_id: Key | None = Field(None, description="the checkpoint's own key")
    policy_data: JsonObject | None = Field(None, description="the policy itself")
    policy_s3_path: Annotated[str, Field(min_length=1, max_length=500)] | None = Field(
        None, description="where the policy is kept"
    )
    validation_score: Real | None = Field(None, description="how good it is")
    metrics: JsonObject | None = Field(None, description="figures by name")

    @model_validator(mode="after")
    def _has_a_policy(self) -> Self:
        if self.policy_data is None and self.policy_s3_path is None:
            raise PydanticCustomError(
                "policy_missing", "at least one of policy_data and policy_s3_path must be given"
            )
        return self


FAMILY = ContractFamily(
    "trajectory",
    ("trajectory.#", "training.#", "policy.#"),
    (
        TrajectoryRecorded,
        TrainingQueued,
        TrainingStarted,
        TrainingProgressed,
        TrainingCompleted,
        TrainingFailed,
        TrainingCancelled,
        PolicyCheckpointSaved,
    ),
)
