"""`dag_nodes` and `dag_edges`: the graph of a run, and the parts that a whole definition stands for."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

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

from contracts.envelope import EventData
from contracts.identifiers import derived_uuid
from contracts.workflow_dag import DagEdgeAdded, DagNodeAdded
from worker.decode import digest
from worker.families.workflow.steps import STEP_RANKS
from worker.message import Message
from worker.store.declaration import Entity, Fold
from worker.store.schema import (
    Kind,
    entity_columns,
    fact_columns,
    json_column,
    key_column,
    metadata,
    one_of,
    owned_by,
    required,
    tenant_column,
)

dag_nodes = Table(
    "dag_nodes",
    metadata,
    key_column("node_id"),
    tenant_column(),
    Column("run_id", Uuid),
    Column("session_id", Uuid),
    Column("node_type", String(20)),
    Column("agent", String(100)),
    Column("status", String(20), server_default="pending"),
    Column("order_index", Integer),
    json_column("metadata"),
    *entity_columns(),
    PrimaryKeyConstraint("id", "tenant_id"),
    owned_by("run_id", "workflow_runs.id"),
    one_of(
        "node_type",
        ("planning", "control", "agent", "approval", "parallel_group", "terminator"),
    ),
    one_of(
        "status",
        (
            *("pending", "running", "paused", "waiting_approval"),
            *("completed", "failed", "skipped"),
        ),
    ),
    CheckConstraint("order_index >= 0", name="order_index"),
    *required("run_id", "session_id", "node_type", "status"),
    Index(None, "run_id", "order_index"),
    Index(None, "session_id"),
    Index("ix_dag_nodes_placeholder", "created_at", postgresql_where=text("placeholder")),
    info={"kind": Kind.ENTITY, "entity_type": "dag_node", "session_column": "session_id"},
)
"""One row a node of a run's graph."""

dag_edges = Table(
    "dag_edges",
    metadata,
    Column("from_node_id", Uuid, nullable=False),
    Column("to_node_id", Uuid, nullable=False),
    tenant_column(),
    Column("run_id", Uuid, nullable=False),
    Column("session_id", Uuid, nullable=False),
    Column("dependency_type", String(20), nullable=False, server_default="sequential"),
    Column("condition", Text),
    *fact_columns(),
    PrimaryKeyConstraint("from_node_id", "to_node_id", "tenant_id"),
    owned_by("from_node_id", "dag_nodes.id"),
    owned_by("to_node_id", "dag_nodes.id"),
    owned_by("run_id", "workflow_runs.id"),
    one_of("dependency_type", ("sequential", "parallel", "conditional")),
    CheckConstraint("from_node_id <> to_node_id", name="not_itself"),
    Index(None, "to_node_id"),
    Index(None, "run_id"),
    Index(None, "session_id"),
    info={"kind": Kind.FACT, "time_column": "created_at", "session_column": "session_id"},
)
"""One row a pair of nodes: the second waits for the first. The pair is the idempotency key."""

DAG_NODE = Entity(
    name="dag_node",
    table=dag_nodes,
    ranks=STEP_RANKS,
    folds={
        "dag.node_added": Fold(
            status="pending",
            creates=True,
            sets=("run_id", "session_id", "node_type", "agent", "order_index", "metadata"),
        ),
        "dag.node_changed": Fold(status_member="status", sets=("agent", "order_index", "metadata")),
    },
)


def parts_of_definition(definition: Message) -> Sequence[Message]:
    """What a `dag.defined` stands for: a `dag.node_added` for each node, a `dag.edge_added` for each edge.

    Their ids follow from the definition's, and their digests are those of the same events published alone.
    """
    data = definition.data
    scope = {"run_id": data["run_id"], "session_id": data["session_id"]}
    nodes = [_part(definition, DagNodeAdded, {**scope, **node}) for node in data["nodes"]]
    edges = [_part(definition, DagEdgeAdded, {**scope, **edge}) for edge in data.get("edges") or ()]
    return [*nodes, *edges]


def _part(definition: Message, contract: type[EventData], data: Mapping[str, Any]) -> Message:
    """One part as a message of its own."""
    fields = contract.model_validate(data)
    name = contract.event_type
    keys = tuple(getattr(fields, member) for member in contract.key_fields)
    place = (fields.node_id,) if isinstance(fields, DagNodeAdded) else keys
    event_id: UUID = derived_uuid(definition.id, name, *place)
    return replace(
        definition,
        type=name,
        id=event_id,
        key=keys or (event_id,),
        data=dict(data),
        fields=fields,
        digest=digest(name, definition.tenant, dict(data)),
        number=None,
    )
