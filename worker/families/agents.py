"""Agents and their sessions: tables of the family `agent-activity`."""

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Index,
    Integer,
    PrimaryKeyConstraint,
    String,
    Table,
    Uuid,
    text,
)

from worker.store.declaration import Entity, Fold
from worker.store.schema import (
    Kind,
    entity_columns,
    json_column,
    metadata,
    one_of,
    owned_by,
    required,
    tenant_column,
    timestamp_column,
)

REVISION = "0006"
"""The migration that these tables need."""

agents = Table(
    "agents",
    metadata,
    Column("agent_id", String(255), nullable=False),
    tenant_column(),
    Column("name", String(100)),
    Column("type", String(50)),
    Column("persona_type", String(50)),
    Column("status", String(50), server_default="idle"),
    json_column("capabilities"),
    json_column("configuration"),
    json_column("metadata"),
    Column("is_active", Boolean, server_default=text("true")),
    Column("tasks_completed", Integer, server_default=text("0")),
    Column("tasks_failed", Integer, server_default=text("0")),
    Column("average_task_duration_ms", Double),
    timestamp_column("last_heartbeat"),
    *entity_columns(),
    PrimaryKeyConstraint("agent_id", "tenant_id"),
    CheckConstraint("tasks_completed >= 0", name="tasks_completed"),
    CheckConstraint("tasks_failed >= 0", name="tasks_failed"),
    CheckConstraint("average_task_duration_ms >= 0", name="average_task_duration_ms"),
    *required("name", "type", "status", "is_active", "tasks_completed", "tasks_failed"),
    Index(None, "type"),
    Index("ix_agents_placeholder", "created_at", postgresql_where=text("placeholder")),
    info={"kind": Kind.ENTITY, "entity_type": "agent"},
)
"""One row an agent. The status is an open set without ranks: what was said last counts."""

agent_sessions = Table(
    "agent_sessions",
    metadata,
    Column("session_id", Uuid, nullable=False),
    tenant_column(),
    Column("agent_id", String(255)),
    Column("user_id", String(255)),
    Column("trust_level", Integer, server_default=text("0")),
    json_column("context"),
    Column("session_state", String(20), server_default="active"),
    timestamp_column("started_at"),
    timestamp_column("ended_at"),
    timestamp_column("expires_at"),
    json_column("metadata"),
    *entity_columns(),
    PrimaryKeyConstraint("session_id", "tenant_id"),
    owned_by("agent_id", "agents.agent_id"),
    CheckConstraint("trust_level BETWEEN 0 AND 4", name="trust_level"),
    one_of("session_state", ("active", "paused", "completed", "expired")),
    *required("agent_id", "trust_level", "session_state", "started_at"),
    Index(None, "agent_id"),
    Index(None, "user_id"),
    Index(
        "ix_agent_sessions_active",
        "agent_id",
        "expires_at",
        postgresql_where=text("session_state = 'active'"),
    ),
    Index("ix_agent_sessions_placeholder", "created_at", postgresql_where=text("placeholder")),
    info={"kind": Kind.ENTITY, "entity_type": "agent_session"},
)
"""One row a stretch of time in which an agent works for a user. No message makes users: user_id is no foreign key."""

AGENT = Entity(
    name="agent",
    table=agents,
    folds={
        "agent.registered": Fold(
            creates=True,
            sets=(
                "name",
                "type",
                "persona_type",
                "status",
                "capabilities",
                "configuration",
                "metadata",
            ),
            means={"is_active": True},
        ),
        "agent.updated": Fold(
            sets=("name", "type", "persona_type", "capabilities", "configuration", "metadata")
        ),
        "agent.heartbeat": Fold(
            sets=("status", "tasks_completed", "tasks_failed", "average_task_duration_ms"),
            at=("last_heartbeat",),
        ),
        "agent.status_changed": Fold(sets=("status",)),
        "agent.deactivated": Fold(means={"is_active": False}),
    },
)

SESSION = Entity(
    name="agent_session",
    table=agent_sessions,
    status="session_state",
    # A session may pause and go on as often as it likes; once it has ended, it has.
    ranks=(("active", "paused"), "expired", "completed"),
    folds={
        "session.started": Fold(
            status="active",
            creates=True,
            sets=("agent_id", "user_id", "trust_level", "context", "expires_at", "metadata"),
            at=("started_at",),
        ),
        "session.updated": Fold(sets=("trust_level", "context", "expires_at", "metadata")),
        "session.paused": Fold(status="paused"),
        "session.resumed": Fold(status="active", sets=("expires_at",)),
        "session.completed": Fold(status="completed", sets=("context",), at=("ended_at",)),
        "session.expired": Fold(status="expired", at_if_empty="ended_at"),
    },
)
