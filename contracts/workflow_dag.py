"""The graph of a run: its nodes and what leads from one to another; contracts of the family `workflow`.

Promises that a definition which passes is a directed acyclic graph whose edges end in its own nodes.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Literal, LiteralString, NotRequired, Self, TypeVar
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from contracts.envelope import EventData
from contracts.fields import Count, JsonObject, Key, ShortName, Text, or_default

MAX_NODES = 1000
"""Most nodes of one definition."""

MAX_EDGES = 5000
"""Most edges of one definition."""

_SHOWN = 10
"""Nodes of a cycle that an error names."""

NodeType = Literal["planning", "control", "agent", "approval", "parallel_group", "terminator"]
NodeStatus = Literal[
    "pending", "running", "paused", "waiting_approval", "completed", "failed", "skipped"
]
DependencyType = Literal["sequential", "parallel", "conditional"]

_Value = TypeVar("_Value")
_closed = ConfigDict(extra="forbid", strict=True, ser_json_inf_nan="constants")


class DagNode(TypedDict):
    """One node of a definition."""

    __pydantic_config__ = _closed  # type: ignore[misc] # pydantic reads it, it is no member

    node_id: Annotated[Key, Field(description="the node")]
    node_type: Annotated[NodeType, Field(description="what kind of node it is")]
    agent: NotRequired[Annotated[ShortName | None, Field(description="the agent that does it")]]
    order_index: NotRequired[Annotated[Count | None, Field(description="its place, from 0")]]
    metadata: NotRequired[Annotated[JsonObject | None, Field(description="labels; open")]]


class DagEdge(TypedDict):
    """One edge of a definition: the second node waits for the first."""

    __pydantic_config__ = _closed  # type: ignore[misc] # as above

    from_node_id: Annotated[Key, Field(description="the node that comes first")]
    to_node_id: Annotated[Key, Field(description="the node that waits for it")]
    dependency_type: NotRequired[
        Annotated[DependencyType | None, Field(description="how it waits; sequential where absent")]
    ]
    condition: NotRequired[
        Annotated[Text | None, Field(description="when the edge is taken, where it is conditional")]
    ]


class DagDefined(EventData):
    """The whole graph of a run, in one message, stored whole or not at all.

    It says the same as one `dag.node_added` for each of `nodes` and one `dag.edge_added` for each of `edges`, which may
    also come by themselves: a graph may grow while it runs. An edge that is stored already with other content makes
    the definition a conflict. A graph that has a cycle is invalid, and the error names the cycle.
    """

    event_type = "dag.defined"

    run_id: Key = Field(description="the run")
    session_id: Key = Field(description="the workspace that it belongs to")
    nodes: Annotated[list[DagNode], Field(min_length=1, max_length=MAX_NODES)] = Field(
        description="the nodes, each once"
    )
    edges: Annotated[list[DagEdge], Field(max_length=MAX_EDGES), or_default([])] = Field(
        [], description="the edges, each once, between these nodes"
    )

    @model_validator(mode="after")
    def _is_a_dag(self) -> Self:
        nodes = [node["node_id"] for node in self.nodes]
        edges = [(edge["from_node_id"], edge["to_node_id"]) for edge in self.edges]
        if node := _first_double(nodes):
            raise _error("dag_node_repeated", "the node {what} stands twice", node)
        if edge := _first_double(edges):
            raise _error("dag_edge_repeated", "the edge {what} stands twice", *edge)
        if unknown := {end for pair in edges for end in pair} - set(nodes):
            text = "an edge ends in {what}, which is none of the nodes"
            raise _error("dag_unknown_node", text, min(unknown))
        if cycle := find_cycle(nodes, edges):
            raise _error("dag_cycle", "the nodes form a cycle: {what}", *_shown(cycle))
        return self


class DagNodeAdded(EventData):
    """A run's graph was given a node. Fills its row in `dag_nodes`; status `pending`.

    `metadata` is an object of labels of the publisher's own making.
    """

    event_type = "dag.node_added"

    node_id: Key = Field(description="the node")
    run_id: Key = Field(description="the run that it belongs to")
    session_id: Key = Field(description="the workspace that it belongs to")
    node_type: NodeType = Field(description="what kind of node it is")
    agent: ShortName | None = Field(None, description="the agent that does it")
    order_index: Count | None = Field(None, description="its place, from 0")
    metadata: JsonObject | None = Field(None, description="labels")


class DagNodeChanged(EventData):
    """A node came further, or was given to another agent. Sets the members that are given.

    `metadata` is an object of labels; it replaces the last one whole.
    """

    event_type = "dag.node_changed"

    node_id: Key = Field(description="the node")
    status: NodeStatus | None = Field(None, description="how it stands")
    agent: ShortName | None = Field(None, description="the agent that does it")
    order_index: Count | None = Field(None, description="its place, from 0")
    metadata: JsonObject | None = Field(None, description="labels")


class DagEdgeAdded(EventData):
    """A run's graph was given an edge. One row in `dag_edges`; the pair of nodes is the idempotency key.

    A cycle that comes about in this way is stored, and shows in the view `dag_cycles`.
    """

    event_type = "dag.edge_added"
    key_fields = ("from_node_id", "to_node_id")

    from_node_id: Key = Field(description="the node that comes first")
    to_node_id: Key = Field(description="the node that waits for it")
    run_id: Key = Field(description="the run that they belong to")
    session_id: Key = Field(description="the workspace that it belongs to")
    dependency_type: Annotated[DependencyType, or_default("sequential")] = Field(
        "sequential", description="how it waits"
    )
    condition: Text | None = Field(
        None, description="when the edge is taken, where it is conditional"
    )

    @model_validator(mode="after")
    def _not_itself(self) -> Self:
        if self.from_node_id == self.to_node_id:
            raise PydanticCustomError("dag_edge_to_itself", "a node must not wait for itself")
        return self


def find_cycle(nodes: Sequence[UUID], edges: Sequence[tuple[UUID, UUID]]) -> list[UUID]:
    """The nodes of one cycle in the order of its edges; empty where there is none."""
    before: dict[UUID, list[UUID]] = {node: [] for node in nodes}
    after: dict[UUID, list[UUID]] = {node: [] for node in nodes}
    for first, second in edges:
        before[second].append(first)
        after[first].append(second)
    waits_for = {node: len(before[node]) for node in nodes}
    free = [node for node in nodes if not waits_for[node]]
    while free:  # whoever waits for nobody can go; who is left waits for a cycle, or is in one
        for node in after[free.pop()]:
            waits_for[node] -= 1
            if not waits_for[node]:
                free.append(node)
    left = [node for node in nodes if waits_for[node]]
    return _walk_back(left[0], before, set(left)) if left else []


def _walk_back(
    node: UUID, before: Mapping[UUID, Sequence[UUID]], left: Collection[UUID]
) -> list[UUID]:
    """The first cycle on the way back from a node; whoever is left has one before it that is left too."""
    path: dict[UUID, None] = {}
    while node not in path:
        path[node] = None
        node = next(one for one in before[node] if one in left)
    walked = list(path)
    return walked[walked.index(node) :][::-1]


def _shown(cycle: list[UUID]) -> list[object]:
    """A cycle from its first node back to it, without most of a long one."""
    rest = [f"… ({len(cycle)} nodes in all) …"] if len(cycle) > _SHOWN else []
    return [*cycle[:_SHOWN], *rest, cycle[0]]


def _first_double(values: Sequence[_Value]) -> _Value | None:
    seen: set[_Value] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def _error(kind: LiteralString, text: LiteralString, *path: object) -> PydanticCustomError:
    return PydanticCustomError(kind, text, {"what": " -> ".join(map(str, path))})
