"""`workflow_steps` and `approval_requests`: what a run does, and what people decide about it."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    Index,
    Integer,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    Uuid,
    text,
)

from worker.store.declaration import Entity, Fold
from worker.store.schema import (
    Kind,
    entity_columns,
    json_column,
    key_column,
    metadata,
    one_of,
    owned_by,
    refers_to,
    required,
    tenant_column,
    timestamp_column,
)

STEP_RANKS = (
    "pending",
    ("running", "paused", "waiting_approval"),
    "skipped",
    "failed",
    "completed",
)

workflow_steps = Table(
    "workflow_steps",
    metadata,
    key_column("step_id"),
    tenant_column(),
    Column("run_id", Uuid),
    Column("session_id", Uuid),
    Column("step_number", Integer),
    Column("agent", String(100)),
    Column("status", String(20), server_default="pending"),
    timestamp_column("started_at"),
    timestamp_column("completed_at"),
    Column("progress_percentage", Integer, server_default=text("0")),
    json_column("inputs"),
    json_column("outputs"),
    Column("error_message", Text),
    json_column("metadata"),
    *entity_columns(),
    PrimaryKeyConstraint("id", "tenant_id"),
    owned_by("run_id", "workflow_runs.id"),
    one_of(
        "status",
        (
            *("pending", "running", "paused", "waiting_approval"),
            *("completed", "failed", "skipped"),
        ),
    ),
    CheckConstraint("step_number >= 0", name="step_number"),
    CheckConstraint("progress_percentage BETWEEN 0 AND 100", name="progress_percentage"),
    *required("run_id", "session_id", "step_number", "status", "progress_percentage"),
    Index(None, "run_id", "step_number"),
    Index(None, "session_id"),
    Index("ix_workflow_steps_placeholder", "created_at", postgresql_where=text("placeholder")),
    info={"kind": Kind.ENTITY, "entity_type": "step", "session_column": "session_id"},
)
"""One row a step of a run."""

approval_requests = Table(
    "approval_requests",
    metadata,
    key_column("approval_id"),
    tenant_column(),
    Column("run_id", Uuid),
    Column("session_id", Uuid),
    Column("step_id", Uuid),
    Column("status", String(20), server_default="pending"),
    timestamp_column("requested_at"),
    timestamp_column("resolved_at"),
    json_column("context_snapshot"),
    json_column("context_snapshot_ref"),
    Column("user_feedback", Text),
    Column("resolution", String(50)),
    *entity_columns(),
    PrimaryKeyConstraint("id", "tenant_id"),
    owned_by("run_id", "workflow_runs.id"),
    refers_to("step_id", "workflow_steps.id"),
    one_of("status", ("pending", "approved", "rejected", "modified")),
    *required("run_id", "session_id", "status", "requested_at"),
    Index(None, "run_id"),
    Index(None, "session_id"),
    Index(None, "step_id"),
    Index(
        "ix_approval_requests_pending", "requested_at", postgresql_where=text("status = 'pending'")
    ),
    Index("ix_approval_requests_placeholder", "created_at", postgresql_where=text("placeholder")),
    info={"kind": Kind.ENTITY, "entity_type": "approval_request", "session_column": "session_id"},
)
"""One row a question to a person, and the answer."""

STEP = Entity(
    name="step",
    table=workflow_steps,
    ranks=STEP_RANKS,
    folds={
        "step.created": Fold(
            status="pending",
            creates=True,
            sets=("run_id", "session_id", "step_number", "agent", "inputs", "metadata"),
        ),
        "step.started": Fold(status="running", sets=("agent", "inputs"), at=("started_at",)),
        "step.progressed": Fold(sets=("progress_percentage", "outputs")),
        "step.paused": Fold(status="paused"),
        "step.waiting_approval": Fold(status="waiting_approval"),
        "step.resumed": Fold(status="running"),
        "step.completed": Fold(
            status="completed", sets=("outputs", "progress_percentage"), at=("completed_at",)
        ),
        "step.failed": Fold(
            status="failed", sets=("error_message", "outputs"), at=("completed_at",)
        ),
        "step.skipped": Fold(status="skipped", at=("completed_at",)),
    },
)

APPROVAL_REQUEST = Entity(
    name="approval_request",
    table=approval_requests,
    ranks=("pending", ("approved", "rejected", "modified")),
    folds={
        "approval.requested": Fold(
            status="pending",
            creates=True,
            sets=("run_id", "session_id", "step_id", "context_snapshot", "context_snapshot_ref"),
            at=("requested_at",),
        ),
        "approval.resolved": Fold(
            status_member="status", sets=("user_feedback", "resolution"), at=("resolved_at",)
        ),
    },
)
