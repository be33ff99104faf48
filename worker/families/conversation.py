"""What was said, and what has to be accounted for: tables of the family `agent-activity`."""

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import INET

from worker.store.declaration import Fact
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

REVISION = "0006"
"""The migration that these tables need."""

conversation_history = Table(
    "conversation_history",
    metadata,
    Column("message_id", Uuid, nullable=False),
    tenant_column(),
    Column("session_id", Uuid, nullable=False),
    Column("role", String(20), nullable=False),
    Column("content", Text, nullable=False),
    Column("message_type", String(30), nullable=False, server_default="text"),
    Column("parent_message_id", Uuid),
    Column("tokens_used", Integer),
    Column("model_used", String(50)),
    *fact_columns(),
    PrimaryKeyConstraint("message_id", "tenant_id"),
    owned_by("session_id", "agent_sessions.session_id"),
    one_of("role", ("user", "agent", "system", "tool")),
    CheckConstraint("tokens_used >= 0", name="tokens_used"),
    Index(None, "session_id", "created_at"),
    postgresql_partition_by="RANGE (message_id)",
    info={"kind": Kind.FACT, "time_column": "created_at"},
)
"""One row a message of a session. `parent_message_id` may name one that is yet to come, or was archived."""

agent_audit_log = Table(
    "agent_audit_log",
    metadata,
    Column("audit_id", Uuid, nullable=False),
    tenant_column(),
    Column("agent_id", String(255), nullable=False),
    Column("session_id", Uuid),
    Column("action_type", String(50), nullable=False),
    json_column("action_details"),
    Column("risk_level", String(20), nullable=False, server_default="low"),
    Column("user_id", String(255)),
    timestamp_column("timestamp", nullable=False),
    Column("ip_address", INET),
    Column("user_agent", Text),
    *fact_columns(),
    PrimaryKeyConstraint("audit_id", "tenant_id"),
    owned_by("agent_id", "agents.agent_id", ondelete="RESTRICT"),
    owned_by("session_id", "agent_sessions.session_id", ondelete="RESTRICT"),
    one_of("risk_level", ("low", "medium", "high", "critical")),
    Index(None, "agent_id", "timestamp"),
    Index(None, "session_id"),
    Index(None, "risk_level"),
    Index(None, "timestamp"),
    Index(None, "tenant_id", "recorded_at"),
    postgresql_partition_by="RANGE (audit_id)",
    info={"kind": Kind.FACT, "time_column": "timestamp", "append_only": True},
)
"""One row an action that has to be accounted for. Triggers refuse UPDATE, DELETE and TRUNCATE."""

agent_audit_seals = Table(
    "agent_audit_seals",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("number", Integer, nullable=False),
    timestamp_column("hour", nullable=False),
    Column("audit_ids", ARRAY(Uuid), nullable=False),
    Column("row_digests", LargeBinary, nullable=False),
    Column("previous", LargeBinary, nullable=False),
    Column("seal", LargeBinary, nullable=False),
    Column("sealed_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    timestamp_column("retired_at"),
    PrimaryKeyConstraint("tenant_id", "number"),
    CheckConstraint("number >= 1", name="number"),
    CheckConstraint("octet_length(row_digests) = 32 * cardinality(audit_ids)", name="row_digests"),
    CheckConstraint("octet_length(previous) = 32 AND octet_length(seal) = 32", name="seal"),
    Index(None, "hour"),
    info={"kind": Kind.OPERATIONAL},
)
"""One row a seal: the digests of audit rows that were recorded within an hour, chained to the tenant's seal before.

A seal whose rows were archived and dropped by retention has `retired_at`.
"""

CONVERSATION = Fact("conversation.message_recorded", conversation_history)
AUDIT = Fact("audit.recorded", agent_audit_log, event_time=("timestamp",))
