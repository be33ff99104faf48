"""`sessions`, `projects` and `workflow_runs`: the scope of a run, and its life."""

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

from worker.families.workflow.dag import parts_of_definition
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

sessions = Table(
    "sessions",
    metadata,
    key_column("session_id"),
    tenant_column(),
    Column("user_id", String(255)),
    Column("name", String(255)),
    Column("status", String(20), server_default="active"),
    json_column("metadata"),
    json_column("resource_limits"),
    timestamp_column("last_active_at"),
    *entity_columns(),
    PrimaryKeyConstraint("id", "tenant_id"),
    one_of("status", ("active", "archived", "deleted")),
    *required("name", "status"),
    Index(None, "user_id"),
    Index("ix_sessions_placeholder", "created_at", postgresql_where=text("placeholder")),
    info={"kind": Kind.ENTITY, "entity_type": "workspace", "session_column": "id"},
)
"""One row a workspace: the scope beyond which nothing of this family reads."""

projects = Table(
    "projects",
    metadata,
    key_column("project_id"),
    tenant_column(),
    Column("session_id", Uuid),
    Column("name", String(255)),
    Column("description", Text),
    json_column("metadata"),
    *entity_columns(),
    PrimaryKeyConstraint("id", "tenant_id"),
    owned_by("session_id", "sessions.id"),
    *required("session_id", "name"),
    Index(None, "session_id"),
    Index("ix_projects_placeholder", "created_at", postgresql_where=text("placeholder")),
    info={"kind": Kind.ENTITY, "entity_type": "project", "session_column": "session_id"},
)
"""One row a project."""

workflow_runs = Table(
    "workflow_runs",
    metadata,
    key_column("run_id"),
    tenant_column(),
    Column("session_id", Uuid),
    Column("project_id", Uuid),
    Column("mode", String(20)),
    Column("agent", String(100)),
    Column("model", String(100)),
    Column("status", String(20), server_default="draft"),
    timestamp_column("started_at"),
    timestamp_column("completed_at"),
    timestamp_column("last_heartbeat_at"),
    Column("checkpoint_frequency_minutes", Integer, server_default=text("10")),
    Column("task_description", Text),
    json_column("metadata"),
    *entity_columns(),
    PrimaryKeyConstraint("id", "tenant_id"),
    owned_by("session_id", "sessions.id"),
    refers_to("project_id", "projects.id"),
    one_of("mode", ("one_shot", "planning_control", "deep_research")),
    one_of(
        "status",
        (
            *("draft", "planning", "executing", "paused"),
            *("waiting_approval", "completed", "failed"),
        ),
    ),
    CheckConstraint("checkpoint_frequency_minutes >= 1", name="checkpoint_frequency_minutes"),
    *required("session_id", "mode", "status", "checkpoint_frequency_minutes"),
    Index(None, "session_id"),
    Index(None, "project_id"),
    Index(None, "status"),
    Index("ix_workflow_runs_placeholder", "created_at", postgresql_where=text("placeholder")),
    info={"kind": Kind.ENTITY, "entity_type": "run", "session_column": "session_id"},
)
"""One row a run, folded from its events."""

SESSION = Entity(
    name="workspace",
    table=sessions,
    ranks=(("active", "archived"), "deleted"),
    folds={
        "workspace.created": Fold(
            status="active",
            creates=True,
            sets=("user_id", "name", "metadata", "resource_limits"),
            at=("last_active_at",),
        ),
        "workspace.updated": Fold(
            sets=("name", "metadata", "resource_limits"), at=("last_active_at",)
        ),
        "workspace.heartbeat": Fold(at=("last_active_at",)),
        "workspace.archived": Fold(status="archived"),
        "workspace.restored": Fold(status="active", at=("last_active_at",)),
        "workspace.deleted": Fold(status="deleted"),
    },
)

PROJECT = Entity(
    name="project",
    table=projects,
    folds={
        "project.created": Fold(
            creates=True, sets=("session_id", "name", "description", "metadata")
        ),
        "project.updated": Fold(sets=("name", "description", "metadata")),
    },
)

RUN = Entity(
    name="run",
    table=workflow_runs,
    ranks=("draft", ("planning", "executing", "paused", "waiting_approval"), "failed", "completed"),
    folds={
        "run.created": Fold(
            status="draft",
            creates=True,
            sets=(
                "session_id",
                "project_id",
                "mode",
                "agent",
                "model",
                "checkpoint_frequency_minutes",
                "task_description",
                "metadata",
            ),
        ),
        "run.planning": Fold(status="planning"),
        "run.started": Fold(status="executing", sets=("agent", "model"), at=("started_at",)),
        "run.paused": Fold(status="paused"),
        "run.waiting_approval": Fold(status="waiting_approval"),
        "run.resumed": Fold(status="executing"),
        "run.heartbeat": Fold(at=("last_heartbeat_at",)),
        "run.completed": Fold(status="completed", sets=("metadata",), at=("completed_at",)),
        "run.failed": Fold(status="failed", at=("completed_at",)),
        # It changes nothing of the run itself: its row in lifecycle_events is what keeps it from being stored twice.
        "dag.defined": Fold(parts=parts_of_definition),
    },
)
