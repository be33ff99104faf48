"""Tasks and what they depend on: tables of the family `task-lifecycle`."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    Index,
    Integer,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    Uuid,
    text,
)

from contracts import task_lifecycle as contract
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

REVISION = "0002"
"""The migration that these tables need."""

STATUSES = (
    "pending",
    "approved",
    "executing",
    "completed",
    "failed",
    "rejected",
    "cancelled",
    "retrying",
)

tasks = Table(
    "tasks",
    metadata,
    Column("task_id", Uuid, nullable=False),
    tenant_column(),
    Column("parent_task_id", Uuid),
    Column("project_id", Uuid),
    Column("type", String(100)),
    Column("request_text", Text),
    Column("created_by", String(255)),
    Column("agent_id", String(255)),
    Column("status", String(20), server_default="pending"),
    Column("priority", Integer, server_default=text("5")),
    Column("attempt", Integer, server_default=text("1")),
    Column("retry_count", Integer, Computed("attempt - 1", persisted=True)),
    Column("max_retries", Integer, server_default=text("3")),
    Column("timeout_seconds", Integer, server_default=text("300")),
    json_column("input"),
    json_column("output"),
    json_column("parameters"),
    json_column("metadata"),
    json_column("estimated_resources"),
    json_column("actual_resources"),
    json_column("external_ai_used"),
    Column("error_message", Text),
    timestamp_column("approved_at"),
    timestamp_column("started_at"),
    timestamp_column("completed_at"),
    Column(
        "duration_ms",
        BigInteger,
        Computed(
            "(EXTRACT(EPOCH FROM completed_at - started_at) * 1000)::bigint",
            persisted=True,
        ),
    ),
    *entity_columns(),
    PrimaryKeyConstraint("task_id", "tenant_id"),
    owned_by("parent_task_id", "tasks.task_id"),
    one_of("status", STATUSES),
    CheckConstraint("priority BETWEEN 1 AND 10", name="priority"),
    CheckConstraint("attempt >= 1", name="attempt"),
    CheckConstraint("max_retries >= 0", name="max_retries"),
    CheckConstraint("timeout_seconds >= 0", name="timeout_seconds"),
    *required("request_text", "status", "priority", "attempt", "max_retries", "timeout_seconds"),
    Index("ix_tasks_created_at", text("created_at DESC")),
    Index(None, "status"),
    Index("ix_tasks_status_priority", "status", text("priority DESC")),
    Index(None, "type"),
    Index(None, "agent_id"),
    Index(None, "parent_task_id"),
    Index(None, "project_id"),
    Index(None, "metadata", postgresql_using="gin"),
    Index("ix_tasks_placeholder", "created_at", postgresql_where=text("placeholder")),
    info={"kind": Kind.ENTITY, "entity_type": "task"},
)
"""One row a task, folded from its events."""

task_dependencies = Table(
    "task_dependencies",
    metadata,
    Column("task_id", Uuid, nullable=False),
    Column("depends_on_task_id", Uuid, nullable=False),
    tenant_column(),
    Column("dependency_type", String(50), nullable=False, server_default="sequential"),
    *fact_columns(),
    PrimaryKeyConstraint("task_id", "depends_on_task_id", "tenant_id"),
    owned_by("task_id", "tasks.task_id"),
    owned_by("depends_on_task_id", "tasks.task_id"),
    CheckConstraint("task_id <> depends_on_task_id", name="not_itself"),
    Index(None, "depends_on_task_id"),
    info={"kind": Kind.FACT, "time_column": "created_at"},
)
"""One row a pair: the first task waits for the second. The pair is the idempotency key."""

TASK = Entity(
    name="task",
    table=tasks,
    # A later rank wins within one attempt; an end without an attempt counts above all attempts.
    ranks=(
        "pending",
        "approved",
        "retrying",
        "executing",
        "failed",
        "completed",
        "rejected",
        "cancelled",
    ),
    attempt_owned=frozenset(
        {"started_at", "completed_at", "output", "error_message", "actual_resources"}
    ),
    folds={
        "task.created": Fold(
            status="pending",
            creates=True,
            sets=(
                "request_text",
                "created_by",
                "project_id",
                "parent_task_id",
                "type",
                "priority",
                "input",
                "parameters",
                "estimated_resources",
                "max_retries",
                "timeout_seconds",
                "agent_id",
                "metadata",
            ),
        ),
        "task.approved": Fold(status="approved", at=("approved_at",)),
        "task.rejected": Fold(status="rejected", at_if_empty="completed_at", ends=True),
        "task.started": Fold(status="executing", sets=("agent_id",), at=("started_at",)),
        "task.completed": Fold(
            status="completed",
            sets=("output", "actual_resources", "external_ai_used"),
            at=("completed_at",),
        ),
        "task.failed": Fold(
            status="failed",
            sets=("error_message", "actual_resources", "external_ai_used"),
            at=("completed_at",),
        ),
        "task.retrying": Fold(status="retrying"),
        "task.cancelled": Fold(status="cancelled", at_if_empty="completed_at", ends=True),
    },
)

FAMILY = Family(
    contract=contract.FAMILY,
    tables=(TASK, Fact("task.depends_on", task_dependencies)),
    revision=REVISION,
)
