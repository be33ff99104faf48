"""Torture in a given installation: it refuses what may be live, and removes what it made. Against real services."""

import asyncio

import pytest
from support.broker import client
from support.commands import command
from support.events import logged
from support.tables import rows

from contracts.registry import families
from worker.broker import topology
from worker.broker.connection import connect
from worker.settings import Settings
from worker.torture import hearing, scratch


@pytest.fixture
def empty_virtual_host(rabbitmq):
    """The URL of a virtual host with nothing in it."""
    yield rabbitmq.create("torture_guard")
    rabbitmq.drop("torture_guard")


@pytest.fixture
def scratch_database(postgres):
    """The URL of an empty database whose name says that it is scratch."""
    yield postgres.create("torture_guard")
    postgres.drop("torture_guard")


def torture(database, broker, *arguments):
    """The command with a given installation; it ends before anything is published, or it is not refused."""
    given = {"DATABASE_URL": database, "AMQP_URL": broker}
    return command("torture", "--minutes", "0.05", "--faults", "none", *arguments, **given)


async def queues(url):
    """Every part of the wire that is in a virtual host, and torture's own."""
    connection = await connect(url, name="test")
    try:
        wanted = topology.topology(families().values())
        names = [queue.name for queue in wanted.queues] + list(hearing.QUEUES)
        found = [n for n in names if await topology.queue_counts(connection, n) is not None]
        exchanges = [exchange.name for exchange in wanted.exchanges] + [scratch.TORTURE.exchange]
        return found + [n for n in exchanges if await topology.exchange_exists(connection, n)]
    finally:
        await connection.close()


async def tables(url):
    found = await rows(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return [row["tablename"] for row in found]


def test_a_name_that_nobody_called_scratch_is_refused(empty_database_url, amqp_url):
    """An installation is not taken for scratch because it is empty; the sentence says what to do, and no secret."""
    done = torture(empty_database_url, amqp_url)
    assert done.code == 2
    assert "--database" in done.err
    assert "--own-services" in done.err
    assert amqp_url.split("@")[0].split(":")[-1] not in done.err
    name = empty_database_url.rpartition("/")[2]
    done = torture(empty_database_url, amqp_url, "--database", name)
    assert done.code == 2
    assert "--virtual-host" in done.err
    done = torture(empty_database_url, amqp_url, "--database", "another")
    assert done.code == 2
    assert "'another'" in done.err


def test_half_an_installation_is_refused(amqp_url):
    """With one of the two addresses nobody knows where the other half would be."""
    done = command("torture", AMQP_URL=amqp_url)
    assert done.code == 2
    assert "DATABASE_URL is not" in done.err
    done = command("torture", "--own-services", "--virtual-host", "torture")
    assert done.code == 2


def test_live_queues_are_refused_and_keep_their_messages(scratch_database, amqp_url):
    """A virtual host with a worker's queues is not touched, though it was named; neither is the database."""
    event = logged()

    async def publish():
        async with client(amqp_url) as agent:
            await agent.publish(event)

    async def waiting():
        connection = await connect(amqp_url, name="test")
        try:
            return await topology.message_count(connection, "worker.execution-log")
        finally:
            await connection.close()

    asyncio.run(publish())
    name = amqp_url.rpartition("/")[2]
    done = torture(scratch_database, amqp_url, "--virtual-host", name)
    assert done.code == 2
    assert "has no mark" in done.err
    assert asyncio.run(waiting()) == 1
    assert scratch.TORTURE.exchange not in asyncio.run(queues(amqp_url))
    assert asyncio.run(tables(scratch_database)) == []


def test_a_database_with_tables_is_refused_and_keeps_them(database_url, empty_virtual_host):
    """A migrated database is a live one, though it was named; the virtual host is not touched either."""
    before = asyncio.run(tables(database_url))
    name = database_url.rpartition("/")[2]
    done = torture(database_url, empty_virtual_host, "--database", name)
    assert done.code == 2
    assert "holds tables" in done.err
    assert asyncio.run(tables(database_url)) == before
    assert asyncio.run(queues(empty_virtual_host)) == []


async def claim(database, broker):
    settings = Settings.load(database_url=database, amqp_url=broker)
    await scratch.claim(settings, None, None)
    return settings


def test_what_an_earlier_run_left_is_removed_unless_somebody_uses_it(
    scratch_database, empty_virtual_host
):
    """The mark stands before anything else is made; with it, leftovers are emptied. A consumer keeps them."""

    async def leave(settings):
        connection = await connect(settings.broker, name="test")
        await topology.apply(connection, topology.topology(families().values()))
        await connection.close()

    async def consume(settings):
        connection = await connect(settings.broker, name="test")
        channel = await connection.channel()
        await channel.basic_consume("worker.trajectory", lambda message: None)
        try:
            with pytest.raises(scratch.Misconfigured, match="is in use"):
                await scratch.claim(settings, None, None)
        finally:
            await connection.close()

    settings = asyncio.run(claim(scratch_database, empty_virtual_host))
    assert asyncio.run(tables(scratch_database)) == [scratch.TORTURE.table]
    asyncio.run(leave(settings))
    asyncio.run(consume(settings))
    asyncio.run(claim(scratch_database, empty_virtual_host))
    assert asyncio.run(queues(empty_virtual_host)) == [scratch.TORTURE.exchange]
    asyncio.run(scratch.remove(settings))
    assert asyncio.run(queues(empty_virtual_host)) == []
    assert asyncio.run(tables(scratch_database)) == []


@pytest.mark.slow
def test_a_scratch_installation_is_used_and_left_empty(scratch_database, empty_virtual_host):
    """A whole run in a given database and virtual host; its balance is the exit code, and nothing is left."""
    done = torture(
        scratch_database, empty_virtual_host, "--workers", "1", "--agents", "4", "--json"
    )
    assert done.code == 0, done.err + done.out
    assert done.json["balanced"] is True
    assert done.json["messages"] > 0
    assert all("given" in service for service in done.json["services"])
    assert asyncio.run(queues(empty_virtual_host)) == []
    assert asyncio.run(tables(scratch_database)) == []
