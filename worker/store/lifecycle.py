"""`lifecycle_events`: every message that changed an entity, as it came, in the order of its own time.

Its row is the idempotency record of such a message and the audit trail of the entity.
"""

from sqlalchemy import (
    CheckConstraint,
    Column,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
)

from worker.store.schema import (
    Kind,
    fact_columns,
    json_column,
    metadata,
    tenant_column,
    timestamp_column,
)

lifecycle_events = Table(
    "lifecycle_events",
    metadata,
    Column("event_id", Uuid, nullable=False),
    tenant_column(),
    timestamp_column("time", nullable=False),
    Column("entity_type", Text, nullable=False),
    Column("entity_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("attempt", Integer),
    json_column("data", nullable=False),
    *fact_columns(event_is_key=True),
    PrimaryKeyConstraint("event_id", "tenant_id"),
    CheckConstraint("attempt >= 1", name="attempt"),
    Index("ix_lifecycle_events_entity_type_entity_id_time", "entity_type", "entity_id", "time"),
    postgresql_partition_by="RANGE (event_id)",
    info={"kind": Kind.FACT, "time_column": "time"},
)
"""One row a message that changed an entity; the key is the message's id."""
