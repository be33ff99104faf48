"""Decisions of agents and how far these are trusted: tables of the family `agent-activity`."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    Double,
    Index,
    Numeric,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    Uuid,
    text,
)

from worker.store.declaration import Entity, Fact, Fold
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

REVISION = "0006"
"""The migration that these tables need."""

agent_decisions = Table(
    "agent_decisions",
    metadata,
    Column("decision_id", Uuid, nullable=False),
    tenant_column(),
    Column("session_id", Uuid),
    Column("decision_type", String(50)),
    json_column("input_context"),
    Column("decision_rationale", Text),
    json_column("action_taken"),
    Column("confidence_score", Double),
    Column("user_feedback", String(20)),
    Column("execution_time_ms", BigInteger),
    *entity_columns(),
    PrimaryKeyConstraint("decision_id", "tenant_id"),
    owned_by("session_id", "agent_sessions.session_id"),
    CheckConstraint("confidence_score BETWEEN 0 AND 1", name="confidence_score"),
    one_of("user_feedback", ("approved", "rejected", "modified")),
    CheckConstraint("execution_time_ms >= 0", name="execution_time_ms"),
    *required("session_id", "decision_type"),
    Index(None, "session_id", "created_at"),
    Index(None, "decision_type"),
    Index("ix_agent_decisions_placeholder", "created_at", postgresql_where=text("placeholder")),
    info={"kind": Kind.ENTITY, "entity_type": "agent_decision"},
)
"""One row a decision: made, then perhaps reviewed."""

trust_metrics = Table(
    "trust_metrics",
    metadata,
    Column("metric_id", Uuid, nullable=False),
    tenant_column(),
    Column("session_id", Uuid, nullable=False),
    Column("metric_type", String(20), nullable=False),
    Column("metric_value", Numeric(5, 2), nullable=False),
    json_column("measurement_context"),
    *fact_columns(),
    PrimaryKeyConstraint("metric_id", "tenant_id"),
    owned_by("session_id", "agent_sessions.session_id"),
    one_of("metric_type", ("accuracy", "autonomy", "complexity")),
    CheckConstraint(
        "metric_value >= 0 AND metric_value <="
        " CASE metric_type WHEN 'complexity' THEN 10 ELSE 100 END",
        name="metric_value",
    ),
    Index(None, "session_id", "metric_type", "created_at"),
    Index(None, "created_at"),
    info={"kind": Kind.FACT, "time_column": "created_at"},
)
"""One row a measurement; created_at says when it was measured, recorded_at when the worker stored it."""

trust_metrics_daily = Table(
    "trust_metrics_daily",
    metadata,
    Column("session_id", Uuid, nullable=False),
    Column("metric_type", String(20), nullable=False),
    Column("day", Date, nullable=False),
    tenant_column(),
    Column("measurements", BigInteger, nullable=False),
    Column("minimum", Numeric(5, 2), nullable=False),
    Column("maximum", Numeric(5, 2), nullable=False),
    Column("total", Numeric, nullable=False),
    Column("last_value", Numeric(5, 2), nullable=False),
    timestamp_column("last_measured_at", nullable=False),
    PrimaryKeyConstraint("session_id", "metric_type", "day", "tenant_id"),
    owned_by("session_id", "agent_sessions.session_id"),
    one_of("metric_type", ("accuracy", "autonomy", "complexity")),
    CheckConstraint("measurements >= 1", name="measurements"),
    CheckConstraint("minimum <= maximum", name="maximum"),
    info={"kind": Kind.OPERATIONAL},
)
"""One row a session, metric and day (UTC): what `worker maintain` makes of measurements before it drops them.

The average is total / measurements.
"""

DECISION = Entity(
    name="agent_decision",
    table=agent_decisions,
    encrypted=frozenset({"decision_rationale"}),
    folds={
        "decision.made": Fold(
            creates=True,
            sets=(
                "session_id",
                "decision_type",
                "input_context",
                "decision_rationale",
                "action_taken",
                "confidence_score",
                "user_feedback",
                "execution_time_ms",
            ),
        ),
        "decision.reviewed": Fold(sets=("user_feedback",)),
    },
)

TRUST_METRIC = Fact("trust.measured", trust_metrics)
