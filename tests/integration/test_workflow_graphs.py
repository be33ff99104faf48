"""A graph in one message: stored whole or not at all, once, in any order with what else is said of its nodes."""

from datetime import UTC, datetime, timedelta

import pytest
from support.events import decoded
from support.tables import contents, rows

from contracts import workflow_dag as dag
from contracts.identifiers import uuid7
from worker.families import plan
from worker.message import Accepted, Rejected
from worker.store.database import Database
from worker.store.persist import Persister
from worker.store.writer import Writer

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
COUNTS = (
    "SELECT (SELECT count(*) FROM dag_nodes WHERE NOT placeholder) AS nodes,"
    " (SELECT count(*) FROM dag_edges) AS edges, (SELECT count(*) FROM lifecycle_events) AS events"
)


@pytest.fixture
async def persist(database_url):
    """Commits events as one batch; gives their outcomes in the order of the events."""
    database = Database(database_url, name="test")
    persister = Persister(database, Writer(plan()), "workflow", "agent.replies.*")

    async def commit(*events):
        outcomes = (await persister.persist(decoded(*events))).outcomes
        by_id = {
            str(one.message.id if isinstance(one, Accepted) else one.id): one for one in outcomes
        }
        return [by_id[str(event.id)] for event in events]

    yield commit
    await database.close()


def graph(nodes, pairs, *, run=None, condition=None, **attributes):
    """The definition of a graph with these nodes and edges."""
    return dag.DagDefined(
        run_id=run or uuid7(),
        session_id=SESSION,
        nodes=[{"node_id": node, "node_type": "agent"} for node in nodes],
        edges=[
            {"from_node_id": one, "to_node_id": other}
            | ({"condition": condition} if condition else {})
            for one, other in pairs
        ],
    ).event(source="/agents/tester", **{"time": NOON} | attributes)


SESSION = uuid7()


async def counts(url):
    [found] = await rows(url, COUNTS)
    return tuple(found.values())


async def test_a_definition_becomes_its_nodes_and_edges(persist, database_url):
    """One message, one outcome; a row for each node and edge, and a lifecycle event for the message and each node."""
    nodes = [uuid7() for _ in range(3)]
    run = uuid7()
    event = graph(nodes, [(nodes[0], nodes[1]), (nodes[1], nodes[2])], run=run)
    assert [one.outcome for one in await persist(event)] == ["persisted"]
    assert await counts(database_url) == (3, 2, 4)
    for table in ("dag_nodes", "dag_edges"):
        [scope] = await rows(database_url, f"SELECT DISTINCT run_id, session_id FROM {table}")
        assert tuple(scope.values()) == (run, SESSION)
    places = await rows(
        database_url, "SELECT tableoid::regclass::text AS place FROM lifecycle_events GROUP BY 1"
    )
    assert len(places) == 1, "parts lie in the partition of their message"


async def test_a_second_time_it_is_a_duplicate(persist, database_url):
    """The same message again, in its batch or later, writes nothing; other content under its id is a conflict."""
    nodes = [uuid7() for _ in range(2)]
    event = graph(nodes, [tuple(nodes)])
    await persist(event, event)
    before = await contents(database_url)
    [again] = await persist(event)
    assert again.outcome == "duplicate"
    [other] = await persist(graph([uuid7()], [], id=event.id))
    assert other.reason == "conflict"
    assert await contents(database_url) == before


async def test_an_edge_with_other_content_refuses_the_whole_definition(persist, database_url):
    """Nothing of the definition is stored, its dead letter names both digests, its neighbours in the batch land."""
    one, other, third = (uuid7() for _ in range(3))
    neighbour = uuid7()
    await persist(graph([one, other], [(one, other)]))
    before = await counts(database_url)
    refused, stored = await persist(
        graph([one, other, third], [(other, third), (one, other)], condition="late"),
        graph([neighbour], []),
    )
    assert isinstance(refused, Rejected)
    assert refused.reason == "conflict"
    assert f"dag.edge_added: the key {one}/{other} is stored" in refused.errors[0]["msg"]
    assert stored.outcome == "persisted"
    nodes, edges, events = before
    assert await counts(database_url) == (nodes + 1, edges, events + 2)
    found = await rows(database_url, "SELECT reason, type FROM dead_letters")
    assert found == [{"reason": "conflict", "type": "dag.defined"}]
    assert await rows(database_url, "SELECT FROM dag_nodes WHERE id = $1", third) == []


async def test_a_later_definition_may_say_the_same_again(persist, database_url):
    """Two definitions of one run share nodes and an edge: the nodes fold, the edge is there once."""
    one, other, third = (uuid7() for _ in range(3))
    run = uuid7()
    first = graph([one, other], [(one, other)], run=run)
    second = graph([one, other, third], [(one, other), (other, third)], run=run)
    outcomes = await persist(first, second)
    assert [one.outcome for one in outcomes] == ["persisted", "persisted"]
    versions = await rows(database_url, "SELECT version FROM dag_nodes ORDER BY id")
    assert [row["version"] for row in versions] == [2, 2, 1]
    assert (await counts(database_url))[1] == 2


async def test_news_of_a_node_may_come_before_its_definition(persist, database_url):
    """A node that is named first is a placeholder; the definition fills it, and the newer status stays."""
    node = uuid7()
    changed = dag.DagNodeChanged(node_id=node, status="running", agent="critic").event(
        source="/agents/tester", time=NOON + timedelta(minutes=1)
    )
    await persist(changed)
    assert await rows(database_url, "SELECT placeholder, run_id FROM dag_nodes") == [
        {"placeholder": True, "run_id": None}
    ]
    await persist(graph([node], []))
    [row] = await rows(
        database_url, "SELECT placeholder, status, agent, node_type, version FROM dag_nodes"
    )
    assert tuple(row.values()) == (False, "running", "critic", "agent", 2)


async def test_the_largest_definition_is_stored(persist, database_url):
    """A thousand nodes and five thousand edges are one message, well within the time of a statement."""
    nodes = [uuid7() for _ in range(dag.MAX_NODES)]
    pairs = [
        (one, nodes[at + step])
        for at, one in enumerate(nodes)
        for step in range(1, 7)
        if at + step < len(nodes)
    ][: dag.MAX_EDGES]
    assert [one.outcome for one in await persist(graph(nodes, pairs))] == ["persisted"]
    assert await counts(database_url) == (dag.MAX_NODES, dag.MAX_EDGES, dag.MAX_NODES + 1)


async def test_cycles_that_come_edge_by_edge_show_in_a_view(persist, database_url):
    """No single message holds the cycle, so each is stored; the view names its nodes once, and no chain."""
    run = uuid7()
    nodes = sorted(uuid7() for _ in range(4))
    pairs = [(0, 1), (1, 2), (2, 0), (2, 3)]
    await persist(
        *(
            dag.DagEdgeAdded(
                from_node_id=nodes[one], to_node_id=nodes[other], run_id=run, session_id=SESSION
            ).event(source="/agents/tester")
            for one, other in pairs
        )
    )
    assert await rows(database_url, "SELECT run_id, node_ids, size FROM dag_cycles") == [
        {"run_id": run, "node_ids": nodes[:3], "size": 3}
    ]
