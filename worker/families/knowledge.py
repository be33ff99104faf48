"""What agents learn: tables of the family `agent-activity`."""

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

from worker.store.declaration import Entity, Fact, Fold
from worker.store.embedding import Embedding
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

agent_knowledge = Table(
    "agent_knowledge",
    metadata,
    Column("knowledge_id", Uuid, nullable=False),
    tenant_column(),
    Column("agent_id", String(255)),
    Column("knowledge_type", String(20)),
    Column("domain", String(100)),
    json_column("content"),
    Column("embedding", Embedding),
    Column("usage_count", Integer, server_default=text("0")),
    Column("success_rate", Double),
    timestamp_column("last_used_at"),
    *entity_columns(),
    PrimaryKeyConstraint("knowledge_id", "tenant_id"),
    owned_by("agent_id", "agents.agent_id"),
    one_of("knowledge_type", ("pattern", "solution", "preference")),
    CheckConstraint("usage_count >= 0", name="usage_count"),
    CheckConstraint("success_rate BETWEEN 0 AND 1", name="success_rate"),
    *required("agent_id", "knowledge_type", "content", "usage_count"),
    Index(None, "agent_id", "knowledge_type"),
    Index(None, "domain"),
    Index("ix_agent_knowledge_placeholder", "created_at", postgresql_where=text("placeholder")),
    info={"kind": Kind.ENTITY, "entity_type": "agent_knowledge"},
)
"""One row a piece of knowledge of one agent."""

knowledge_entries = Table(
    "knowledge_entries",
    metadata,
    Column("id", Uuid, nullable=False),
    tenant_column(),
    Column("entity_type", String(50)),
    Column("entity_name", String(255)),
    json_column("properties"),
    Column("embedding", Embedding),
    Column("external_graph_id", String(255)),
    *entity_columns(),
    PrimaryKeyConstraint("id", "tenant_id"),
    *required("entity_type", "entity_name"),
    Index(None, "entity_type", "entity_name"),
    Index(None, "external_graph_id"),
    Index("ix_knowledge_entries_placeholder", "created_at", postgresql_where=text("placeholder")),
    info={"kind": Kind.ENTITY, "entity_type": "knowledge_entry"},
)
"""One row a thing of the knowledge graph that all agents of a tenant share."""

learning_experiences = Table(
    "learning_experiences",
    metadata,
    Column("id", Uuid, nullable=False),
    tenant_column(),
    Column("agent_id", String(255), nullable=False),
    Column("task_id", Uuid),
    Column("experience_type", String(50), nullable=False),
    json_column("input_data"),
    json_column("output_data"),
    Column("success", Boolean),
    Column("confidence", Double),
    json_column("learning_points"),
    json_column("feedback"),
    *fact_columns(),
    PrimaryKeyConstraint("id", "tenant_id"),
    owned_by("agent_id", "agents.agent_id"),
    owned_by("task_id", "tasks.task_id"),
    CheckConstraint("confidence BETWEEN 0 AND 1", name="confidence"),
    Index(None, "agent_id", "created_at"),
    Index(None, "task_id"),
    info={"kind": Kind.FACT, "time_column": "created_at"},
)
"""One row an experience of an agent, in a task or outside of any."""

KNOWLEDGE = Entity(
    name="agent_knowledge",
    table=agent_knowledge,
    folds={
        "knowledge.learned": Fold(
            creates=True,
            sets=("agent_id", "knowledge_type", "content", "domain", "embedding", "success_rate"),
        ),
        "knowledge.updated": Fold(sets=("content", "domain", "embedding")),
        "knowledge.used": Fold(sets=("usage_count", "success_rate"), at=("last_used_at",)),
    },
)

KNOWLEDGE_ENTRY = Entity(
    name="knowledge_entry",
    table=knowledge_entries,
    folds={
        "knowledge.entry_recorded": Fold(
            creates=True,
            sets=("entity_type", "entity_name", "properties", "embedding", "external_graph_id"),
        ),
        "knowledge.entry_updated": Fold(
            sets=("entity_name", "properties", "embedding", "external_graph_id")
        ),
    },
)

LEARNING = Fact("learning.recorded", learning_experiences)
