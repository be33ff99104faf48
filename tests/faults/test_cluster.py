"""A cluster of three RabbitMQ nodes that loses, stops or moves parts of itself under load: nothing is lost, nothing doubled."""

import asyncio
import contextlib
import itertools
import signal
from collections.abc import AsyncIterator, Iterable

import pytest
from pydantic import SecretStr
from support.broker import new_topology
from support.cluster import SIZE, Cluster, running_cluster
from support.events import logged
from support.ledger import Ledger
from support.waiting import until
from support.workers import worker_process

from contracts.client import Publisher
from worker.broker import topology
from worker.broker.connection import connect
from worker.sandbox.processes import free_port
from worker.settings import Settings

pytestmark = [pytest.mark.torture, pytest.mark.timeout(1200)]

QUEUE = "worker.execution-log"
AGENTS = 6
WORKERS = 2
PATIENCE = 180
_numbers = itertools.count()


@pytest.fixture(scope="module")
def started_cluster():
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(started_cluster):
    """The cluster as a test finds it, and leaves it: every node runs."""
    yield started_cluster
    for node in started_cluster.nodes.values():
        node.start()


@pytest.fixture
async def virtual_host(cluster) -> AsyncIterator[str]:
    """A virtual host of this test, with the topology in it, each queue on every node."""
    [first, *_] = cluster.nodes.values()
    name = f"cluster_{next(_numbers)}"
    url = await asyncio.to_thread(first.create, name)
    await new_topology(url)
    await settled(cluster, name)
    yield name
    await asyncio.to_thread(first.start)
    await asyncio.to_thread(first.drop, name)


@pytest.fixture
def settings(database_url, cluster, virtual_host) -> Settings:
    """Settings that name every node."""
    return Settings.load(
        database_url=database_url,
        amqp_url=cluster.url(virtual_host),
        http_port=0,
        retry_longest=0.5,
        outbox_sweep_after=1,
        start_timeout=60,
        log_level="error",
    )


async def settled(cluster: Cluster, virtual_host: str) -> None:
    """Wait until every queue has a leader and all its members."""
    await until(lambda: asyncio.to_thread(cluster.complete, virtual_host), PATIENCE)


async def leader_of(cluster: Cluster, virtual_host: str) -> str:
    """The node that leads the queue under load, once one does."""

    def leader() -> str | None:
        facts = cluster.queues(virtual_host).get(QUEUE)
        return facts and facts["leader"]

    return await until(lambda: asyncio.to_thread(leader), PATIENCE)


@contextlib.asynccontextmanager
async def agents_at_work(url: str, ledger: Ledger) -> AsyncIterator[None]:
    """Agents that publish and wait for each write; at the end of the block each has heard of all that it published."""
    enough = asyncio.Event()

    async def agent(number: int) -> None:
        async with Publisher(url, source=f"/agents/{number}", timeout=PATIENCE) as publisher:
            while not enough.is_set():
                event = logged()
                await publisher.persisted(event)
                ledger.published.append(event)

    async with asyncio.TaskGroup() as tasks:
        for number in range(AGENTS):
            tasks.create_task(agent(number))
        yield
        enough.set()


async def consumed(settings: Settings, queues: Iterable[str]) -> None:
    """Wait until every queue has every worker as a consumer, wherever its leader is now.

    The queue itself is asked: what a node that has restarted lists as their number may be 0 for ever.
    """

    async def all_are() -> bool:
        connection = await connect(settings.broker, name="look")
        try:
            found = [await topology.queue_counts(connection, name) for name in queues]
        finally:
            await connection.close()
        return all(counts is not None and counts[1] == WORKERS for counts in found)

    await until(all_are, PATIENCE)


async def flows(ledger: Ledger, count: int = 100) -> None:
    """Wait until so many more events were published, stored and confirmed."""
    wanted = len(ledger.published) + count
    await until(lambda: len(ledger.published) >= wanted, PATIENCE)


async def ready(port: int) -> bool:
    """Whether a worker says that it is attached to all its queues."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
        answer = await reader.readline()
        writer.close()
    except OSError:
        return False
    return b" 200 " in answer


async def kill_and_start(cluster: Cluster, virtual_host: str, name: str, ledger: Ledger) -> None:
    """Kill a node; work goes on with the two others, and with it again."""
    node = cluster.nodes[name]
    await asyncio.to_thread(node.kill)
    await flows(ledger)
    assert await leader_of(cluster, virtual_host) != name
    await asyncio.to_thread(node.start)
    await settled(cluster, virtual_host)


async def the_leader_dies(cluster: Cluster, virtual_host: str, ledger: Ledger) -> None:
    leader = await leader_of(cluster, virtual_host)
    await kill_and_start(cluster, virtual_host, leader, ledger)


async def a_follower_dies(cluster: Cluster, virtual_host: str, ledger: Ledger) -> None:
    leader = await leader_of(cluster, virtual_host)
    follower = next(name for name in cluster.nodes if name != leader)
    await kill_and_start(cluster, virtual_host, follower, ledger)
    assert await leader_of(cluster, virtual_host) == leader


async def leadership_moves(cluster: Cluster, virtual_host: str, ledger: Ledger) -> None:
    """To each other node, and back."""
    first = await leader_of(cluster, virtual_host)
    for name in [*(name for name in cluster.nodes if name != first), first]:
        await asyncio.to_thread(cluster.move_leader, virtual_host, QUEUE, name)
        await flows(ledger)
        assert await leader_of(cluster, virtual_host) == name


async def leaders_are_rebalanced(cluster: Cluster, virtual_host: str, ledger: Ledger) -> None:
    """All were on the node where they were declared; then they are spread."""
    queues = await asyncio.to_thread(cluster.queues, virtual_host)
    [first, *_] = cluster.nodes
    for name in queues:
        await asyncio.to_thread(cluster.move_leader, virtual_host, name, first)
    await asyncio.to_thread(cluster.rebalance)
    await flows(ledger)
    queues = await asyncio.to_thread(cluster.queues, virtual_host)
    assert len({queue["leader"] for queue in queues.values()}) > 1


async def nodes_restart_one_by_one(cluster: Cluster, virtual_host: str, ledger: Ledger) -> None:
    """As for an upgrade: each is stopped in an orderly way, and the next only once it is back."""
    for node in cluster.nodes.values():
        await asyncio.to_thread(node.stop)
        await flows(ledger)
        await asyncio.to_thread(node.start)
        await settled(cluster, virtual_host)


@pytest.mark.parametrize(
    "happens",
    [
        the_leader_dies,
        a_follower_dies,
        leadership_moves,
        leaders_are_rebalanced,
        nodes_restart_one_by_one,
    ],
    ids=lambda happens: happens.__name__,
)
async def test_work_goes_on_whatever_the_cluster_loses(happens, cluster, virtual_host, settings):
    """Every event is stored and confirmed, both workers are ready and attached to every queue again, and the ledger balances."""
    ledger = Ledger()
    async with contextlib.AsyncExitStack() as stack:
        workers, ports = [], [free_port() for _ in range(WORKERS)]
        for port in ports:
            own = settings.model_copy(update={"http_port": port})
            workers.append(await stack.enter_async_context(worker_process(own)))
        for port in ports:
            await until(lambda port=port: ready(port), PATIENCE)
        async with agents_at_work(settings.broker, ledger):
            await flows(ledger)
            await happens(cluster, virtual_host, ledger)
            await flows(ledger)
        for port in ports:
            await until(lambda port=port: ready(port), PATIENCE)
        queues = await asyncio.to_thread(cluster.queues, virtual_host)
        assert {len(queue["members"]) for queue in queues.values()} == {SIZE}
        await consumed(settings, queues)
        for worker in workers:
            worker.signal(signal.SIGTERM)
            assert await worker.ended() == 0
    await ledger.balance(settings.database)


async def test_a_worker_with_one_address_waits_for_its_node(cluster, virtual_host, settings):
    """The cluster lives, but its own node does not: it says so, waits, and goes on when the node is back."""
    node = next(iter(cluster.nodes.values()))
    port = free_port()
    one = SecretStr(node.address.url(virtual_host))
    own = settings.model_copy(update={"amqp_url": one, "http_port": port})
    async with worker_process(own) as worker:
        await until(lambda: ready(port), PATIENCE)
        await asyncio.to_thread(node.kill)

        async def not_ready() -> bool:
            return not await ready(port)

        await until(not_ready, PATIENCE)
        async with Publisher(settings.broker, source="/agents/1", timeout=PATIENCE) as publisher:
            event = logged()
            await publisher.publish(event)
            await asyncio.to_thread(node.start)
            await publisher.persisted(event)
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0
    await settled(cluster, virtual_host)
    ledger = Ledger(published=[event])
    await ledger.balance(settings.database)
