"""What agents did, step by step: the table of the family `execution-log`."""

from sqlalchemy import (
    BigInteger,
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

from contracts import execution_log as contract
from worker.store.declaration import Fact, Family
from worker.store.schema import (
    Kind,
    fact_columns,
    json_column,
    metadata,
    one_of,
    owned_by,
    tenant_column,
    timestamp_column,
)

REVISION = "0003"
"""The migration that this table needs."""

execution_logs = Table(
    "execution_logs",
    metadata,
    Column("log_id", Uuid, nullable=False),
    tenant_column(),
    Column("task_id", Uuid, nullable=False),
    Column("step_number", Integer, nullable=False),
    Column("agent_type", String(50), nullable=False),
    Column("action", Text, nullable=False),
    Column("status", String(20), nullable=False),
    Column("output_summary", String(500)),
    json_column("output_full"),
    timestamp_column("timestamp", nullable=False),
    Column("duration_ms", BigInteger),
    *fact_columns(),
    PrimaryKeyConstraint("log_id", "tenant_id"),
    owned_by("task_id", "tasks.task_id"),
    CheckConstraint("step_number >= 0", name="step_number"),
    CheckConstraint("agent_type ~ '^[a-z0-9][a-z0-9_-]*$'", name="agent_type"),
    one_of("status", ("running", "completed", "failed")),
    CheckConstraint("duration_ms >= 0", name="duration_ms"),
    Index(None, "task_id", "step_number"),
    Index(None, "timestamp"),
    Index("ix_execution_logs_failed", "timestamp", postgresql_where=text("status = 'failed'")),
    postgresql_partition_by="RANGE (log_id)",
    info={"kind": Kind.FACT, "time_column": "timestamp"},
)
"""One row a step of a task."""

FAMILY = Family(
    contract=contract.FAMILY,
    tables=(Fact("execution.logged", execution_logs, event_time=("timestamp",)),),
    revision=REVISION,
)
