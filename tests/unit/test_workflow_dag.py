"""Cycles of a graph, and keys that follow from others: what can be known without a database."""

from graphlib import CycleError, TopologicalSorter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts.identifiers import derived_uuid, uuid7, uuid7_time_ms
from contracts.workflow_dag import DagDefined, find_cycle

NODES = [UUID(int=number) for number in range(7)]
pairs = st.lists(
    st.tuples(st.sampled_from(NODES), st.sampled_from(NODES)), max_size=14, unique=True
)


def has_cycle(edges):
    sorter = TopologicalSorter({node: [] for node in NODES})
    for first, second in edges:
        sorter.add(second, first)
    try:
        sorter.prepare()
    except CycleError:
        return True
    return False


@given(pairs)
def test_a_cycle_is_found_where_there_is_one(edges):
    """What is named is a cycle of the graph's own edges, each node once; nothing is named where there is none."""
    cycle = find_cycle(NODES, edges)
    assert bool(cycle) == has_cycle(edges)
    assert len(set(cycle)) == len(cycle)
    assert all((node, cycle[(at + 1) % len(cycle)]) in edges for at, node in enumerate(cycle))


def test_the_error_names_the_cycle_and_not_all_of_a_long_one():
    """A person sees where to look; a cycle of a thousand nodes is told in short."""
    for size in (3, 1000):
        nodes = [UUID(int=number) for number in range(size)]
        edges = [
            {"from_node_id": one, "to_node_id": nodes[(at + 1) % size]}
            for at, one in enumerate(nodes)
        ]
        with pytest.raises(ValidationError) as error:
            DagDefined(
                run_id=uuid7(),
                session_id=uuid7(),
                nodes=[{"node_id": node, "node_type": "agent"} for node in nodes],
                edges=edges,
            )
        [found] = error.value.errors()
        assert found["type"] == "dag_cycle"
        shown = found["msg"].removeprefix("the nodes form a cycle: ").split(" -> ")
        assert shown[0] == shown[-1]
        assert len(shown) == (4 if size == 3 else 12)
        assert ("1000 nodes in all" in found["msg"]) == (size == 1000)
        assert len(found["msg"]) < 600


def test_a_derived_key_is_its_parents_neighbour():
    """The same for every call, another for other parts, and of the parent's millisecond."""
    parent = uuid7()
    key = derived_uuid(parent, "dag.node_added", NODES[1])
    assert key == derived_uuid(parent, "dag.node_added", NODES[1])
    others = {derived_uuid(parent, "dag.node_added", node) for node in NODES}
    others |= {derived_uuid(parent, "dag.edge_added", NODES[1])}
    others |= {derived_uuid(uuid7(), "dag.node_added", NODES[1])}
    assert len(others) == len(NODES) + 2
    assert (key.version, uuid7_time_ms(key)) == (7, uuid7_time_ms(parent))
