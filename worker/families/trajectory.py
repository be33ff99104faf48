"""Training jobs, the trajectories they gather and the policies they save: tables of the family `trajectory`."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    Numeric,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from contracts import trajectory as contract
from worker.store.declaration import Entity, Fact, Family, Fold
from worker.store.schema import (
    Kind,
    entity_columns,
    fact_columns,
    json_column,
    metadata,
    one_of,
    owned_by,
    required,
    tenant_column,
    timestamp_column,
)

REVISION = "0004"
"""The migration that these tables need."""

JOB_STATUSES = ("queued", "running", "completed", "failed", "cancelled")

training_jobs = Table(
    "training_jobs",
    metadata,
    Column("job_id", Uuid, nullable=False),
    tenant_column(),
    Column("agent_id", String(255)),
    Column("status", String(20), server_default="queued"),
    json_column("config"),
    json_column("training_data"),
    Column("current_iteration", Integer, server_default=text("0")),
    Column("total_iterations", Integer),
    json_column("metrics"),
    Column("cost_usd", Numeric(14, 6), server_default=text("0")),
    Column("budget_usd", Numeric(14, 6)),
    Column("best_checkpoint_id", Uuid),
    timestamp_column("started_at"),
    timestamp_column("completed_at"),
    Column("error_message", String(1000)),
    *entity_columns(),
    PrimaryKeyConstraint("job_id", "tenant_id"),
    one_of("status", JOB_STATUSES),
    CheckConstraint("current_iteration >= 0", name="current_iteration"),
    CheckConstraint("total_iterations >= 1", name="total_iterations"),
    CheckConstraint("cost_usd >= 0", name="cost_usd"),
    CheckConstraint("budget_usd >= 0", name="budget_usd"),
    *required("agent_id", "status", "total_iterations"),
    Index("ix_training_jobs_placeholder", "created_at", postgresql_where=text("placeholder")),
    info={"kind": Kind.ENTITY, "entity_type": "training_job"},
)
"""One row a training job, folded from its events. `best_checkpoint_id` may name a checkpoint that is yet to come."""

trajectories = Table(
    "trajectories",
    metadata,
    Column("trajectory_id", Uuid, nullable=False),
    tenant_column(),
    Column("job_id", Uuid, nullable=False),
    Column("agent_id", String(255), nullable=False),
    Column("query", Text, nullable=False),
    Column("steps", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    Column("reward", Double, nullable=False),
    Column("normalized_reward", Double),
    Column("advantage", Double),
    Column("execution_time_ms", BigInteger),
    Column("success", Boolean),
    *fact_columns(),
    PrimaryKeyConstraint("trajectory_id", "tenant_id"),
    owned_by("job_id", "training_jobs.job_id"),
    CheckConstraint(
        "CASE WHEN jsonb_typeof(steps) = 'array' THEN jsonb_array_length(steps) <= 100"
        " ELSE false END",
        name="steps",
    ),
    CheckConstraint("execution_time_ms >= 0", name="execution_time_ms"),
    Index(None, "job_id"),
    Index(None, "agent_id"),
    Index(None, "created_at"),
    Index(None, "success"),
    Index(None, "steps", postgresql_using="gin", postgresql_ops={"steps": "jsonb_path_ops"}),
    postgresql_partition_by="RANGE (trajectory_id)",
    info={"kind": Kind.FACT, "time_column": "created_at"},
)
"""One row a run of an agent on one query, with its steps and its reward."""

policy_checkpoints = Table(
    "policy_checkpoints",
    metadata,
    Column("checkpoint_id", Uuid, nullable=False),
    tenant_column(),
    Column("agent_id", String(255), nullable=False),
    Column("job_id", Uuid, nullable=False),
    Column("iteration", Integer, nullable=False),
    json_column("policy_data"),
    Column("policy_s3_path", String(500)),
    Column("validation_score", Double),
    json_column("metrics"),
    *fact_columns(),
    PrimaryKeyConstraint("checkpoint_id", "tenant_id"),
    owned_by("job_id", "training_jobs.job_id"),
    CheckConstraint("iteration >= 0", name="iteration"),
    CheckConstraint("num_nonnulls(policy_data, policy_s3_path) >= 1", name="policy"),
    Index(None, "agent_id"),
    Index(None, "job_id"),
    Index(None, "created_at"),
    Index(None, "validation_score"),
    info={"kind": Kind.FACT, "time_column": "created_at"},
)
"""One row a saved policy: the policy itself, or where it is kept."""

TRAINING_JOB = Entity(
    name="training_job",
    table=training_jobs,
    ranks=("queued", "running", "failed", "completed", "cancelled"),
    folds={
        "training.queued": Fold(
            status="queued",
            creates=True,
            sets=("agent_id", "total_iterations", "config", "training_data", "budget_usd"),
        ),
        "training.started": Fold(status="running", at=("started_at",)),
        "training.progressed": Fold(
            status="running", sets=("current_iteration", "metrics", "cost_usd")
        ),
        "training.completed": Fold(
            status="completed",
            sets=("current_iteration", "metrics", "cost_usd", "best_checkpoint_id"),
            at=("completed_at",),
        ),
        "training.failed": Fold(
            status="failed", sets=("error_message", "cost_usd"), at=("completed_at",)
        ),
        "training.cancelled": Fold(status="cancelled", at_if_empty="completed_at"),
    },
)

FAMILY = Family(
    contract=contract.FAMILY,
    tables=(
        TRAINING_JOB,
        Fact("trajectory.recorded", trajectories),
        Fact("policy.checkpoint_saved", policy_checkpoints),
    ),
    revision=REVISION,
)
