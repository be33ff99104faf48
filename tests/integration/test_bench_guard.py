"""`worker bench` in a given installation: it measures a scratch place, accounts for every message and leaves nothing."""

import asyncio

import pytest
from support.broker import client
from support.commands import command
from support.events import logged
from support.tables import rows

from contracts.registry import families
from worker.bench.accounts import account
from worker.bench.hearing import Hearing
from worker.bench.run import BENCH
from worker.broker import topology
from worker.broker.connection import connect
from worker.operations.services import open_database
from worker.settings import Settings
from worker.torture import scratch


@pytest.fixture
def empty_virtual_host(rabbitmq):
    """The URL of a virtual host with nothing in it."""
    yield rabbitmq.create("bench_guard")
    rabbitmq.drop("bench_guard")


@pytest.fixture
def scratch_database(postgres):
    """The URL of an empty database whose name says that it is scratch."""
    yield postgres.create("bench_guard")
    postgres.drop("bench_guard")


def bench(database, broker, *arguments, **environment):
    """The command in a given installation, as quick as it can be."""
    given = {"DATABASE_URL": database, "AMQP_URL": broker, **environment}
    return command("bench", "--seconds", "3", "--messages", "300", *arguments, **given)


async def parts(url):
    """What is in a virtual host: parts of the wire, and marks."""
    connection = await connect(url, name="test")
    try:
        wanted = topology.topology(families().values())
        names = [queue.name for queue in wanted.queues]
        found = [n for n in names if await topology.queue_counts(connection, n) is not None]
        exchanges = [exchange.name for exchange in wanted.exchanges]
        exchanges += [BENCH.exchange, scratch.TORTURE.exchange]
        return found + [n for n in exchanges if await topology.exchange_exists(connection, n)]
    finally:
        await connection.close()


async def tables(url):
    found = await rows(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return [row["tablename"] for row in found]


def is_empty(database, broker):
    return not asyncio.run(tables(database)) and not asyncio.run(parts(broker))


@pytest.mark.slow
def test_a_scratch_installation_is_measured_and_left_empty(scratch_database, empty_virtual_host):
    """Every figure is there, every message is accounted for, and nothing is left; people and programs are told."""
    done = bench(scratch_database, empty_virtual_host, "--processes", "2", "--json")
    assert done.code == 0, done.err + done.out
    found = done.json
    assert found["complete"] is True
    assert found["messages"] == 300
    assert found["accounts"]["rows"] == found["accounts"]["published"] == 300 + 600 + 300 + 100
    assert found["accounts"]["confirmed"] == 300 + 100
    assert found["verdict"]["stage"] in found["stages"]
    for stage in found["stages"].values():
        assert stage["messages_per_second"] > 0
    assert found["messages_per_second"] > 0
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p99"]
    assert found["stages"]["database"]["round_trip_ms"] > 0
    assert all("given" in service for service in found["services"])
    assert found["verdict"]["text"] in done.err
    assert is_empty(scratch_database, empty_virtual_host)


@pytest.mark.slow
def test_a_worker_that_dies_ends_it_and_nothing_is_left(scratch_database, empty_virtual_host):
    """A figure of a worker that is not there is none: it is said, and the place is emptied all the same."""
    done = bench(
        scratch_database,
        empty_virtual_host,
        *("--family", "task-lifecycle"),
        WORKER_CRASH_POINT="before_acknowledge",
    )
    assert done.code == 3, done.err + done.out
    assert "bench-worker-1 ended" in done.err
    assert "Traceback" not in done.err
    assert is_empty(scratch_database, empty_virtual_host)


def test_a_place_that_nobody_called_scratch_is_refused(database_url, amqp_url, scratch_database):
    """By its name, by what is in it, and where another command left its mark; nothing is touched."""
    before = asyncio.run(tables(database_url)), asyncio.run(parts(amqp_url))
    done = bench(database_url, amqp_url)
    assert done.code == 2
    assert "--database" in done.err
    assert "'bench'" in done.err
    database, host = database_url.rpartition("/")[2], amqp_url.rpartition("/")[2]
    done = bench(scratch_database, amqp_url, "--virtual-host", host)
    assert done.code == 2
    assert "no mark of an earlier bench" in done.err
    assert asyncio.run(tables(scratch_database)) == []
    done = bench(database_url, amqp_url, "--database", database)
    assert done.code == 2
    assert "--virtual-host" in done.err
    assert before == (asyncio.run(tables(database_url)), asyncio.run(parts(amqp_url)))


def test_what_another_command_left_is_not_removed(empty_virtual_host, scratch_database):
    """The mark of torture says nothing about what bench may remove."""

    async def torture_was_here():
        settings = Settings.load(database_url=scratch_database, amqp_url=empty_virtual_host)
        await scratch.claim(settings, scratch_database.rpartition("/")[2], host)

    host = empty_virtual_host.rpartition("/")[2]
    asyncio.run(torture_was_here())
    done = bench(scratch_database, empty_virtual_host)
    assert done.code == 2
    assert "torture_mark" in done.err
    assert asyncio.run(tables(scratch_database)) == ["torture_mark"]


async def test_what_is_missing_or_too_much_is_told(settings, worker):
    """A message without a row, a row that nobody published, a message without a confirmation: each is a problem."""
    kept, stray, never = logged(), logged(), logged()
    connection = await connect(settings.broker, name="test")
    try:
        async with Hearing.open(connection) as hearing, open_database(settings) as database:
            async with client(settings.broker) as agent:
                await agent.publish(kept)
                await agent.publish(stray)
            await hearing.all([kept.id, stray.id], lambda: None, patience=60)
            await hearing.all([never.id], lambda: None, patience=0.01)
            both = await account(database, connection, hearing, [kept.id], [stray.id], [])
            assert (both.complete, both.rows, both.confirmed) == (True, 2, 1)
            less = await account(database, connection, hearing, [kept.id, never.id], [], ["x"])
            assert less.problems == (
                "x",
                "1 messages have no row",
                "1 rows were published by nobody",
                "1 messages were not confirmed as persisted",
            )
            assert not less.complete
    finally:
        await connection.close()
