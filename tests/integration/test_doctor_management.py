"""What only a broker's management API, or a server of one's own, lets the doctor see."""

import asyncio

import pytest
from support.broker import new_topology
from support.tables import connected
from support.waiting import until

from worker.broker.connection import connect
from worker.operations import broker_checks, management_checks, replication_checks
from worker.operations.findings import Level
from worker.sandbox import Sandbox
from worker.sandbox.processes import free_port
from worker.settings import Settings
from worker.store.database import Database


@pytest.fixture(scope="module")
def own():
    """A PostgreSQL and a RabbitMQ with its management API, and settings that name them."""
    port = free_port()
    with Sandbox(
        postgres="wheel,local,install",
        rabbitmq="local,install",
        rabbitmq_plugins=["rabbitmq_management"],
        rabbitmq_settings={
            "management.tcp.ip": "127.0.0.1",
            "management.tcp.port": str(port),
            "channel_max": "3",
        },
        say=lambda line: None,
    ) as sandbox:
        user = sandbox.rabbitmq.address.user
        sandbox.rabbitmq.control("set_user_tags", user, "monitoring")
        yield (
            sandbox,
            Settings.load(
                database_url=sandbox.database_url,
                amqp_url=sandbox.amqp_url,
                management_url=f"http://127.0.0.1:{port}",
            ),
        )


async def becomes(settings: Settings, check: str, level: Level) -> str:
    """What the doctor says of a check, once it is of this level."""

    async def look() -> str | None:
        findings = await management_checks.examine(settings)
        told = [one.what for one in findings if (one.check, one.level) == (check, level)]
        return told[0] if told else None

    return await until(look, 60)


async def test_a_policy_that_drops_messages_is_seen(own):
    """It changes the queue without being one of its arguments."""
    sandbox, settings = own
    await new_topology(settings.broker)
    await becomes(settings, "policies", Level.OK)
    virtual_host = settings.broker.rpartition("/")[2]
    policy = ("-p", virtual_host, "short", "^worker", '{"message-ttl":1000}')
    await asyncio.to_thread(sandbox.rabbitmq.control, "set_policy", *policy)
    told = await becomes(settings, "policies", Level.MEND)
    assert "policy short sets message-ttl = 1000 on queue worker." in told


async def test_a_limit_of_the_virtual_host_is_seen(own):
    """Too few connections for a handful of workers."""
    sandbox, settings = own
    await becomes(settings, "limits", Level.OK)
    virtual_host = settings.broker.rpartition("/")[2]
    limit = ("-p", virtual_host, '{"max-connections": 19}')
    await asyncio.to_thread(sandbox.rabbitmq.control, "set_vhost_limits", *limit)
    assert "allows 19 connections" in await becomes(settings, "limits", Level.NOTE)


async def test_an_alarm_is_seen(own):
    """A node without memory blocks publishers (and stays so: the broker is of this file alone)."""
    sandbox, settings = own
    await becomes(settings, "nodes", Level.OK)
    watermark = ("set_vm_memory_high_watermark", "absolute", "1")
    await asyncio.to_thread(sandbox.rabbitmq.control, *watermark)
    assert "memory alarm" in await becomes(settings, "nodes", Level.MEND)


async def test_too_few_channels_are_found(own):
    """A connection of this broker has three, and a worker needs one a family."""
    _, settings = own
    connection = await connect(settings.broker, name="doctor")
    try:
        assert connection.channel_max == 3
    finally:
        await connection.close()
    assert broker_checks.judge_channels(3, 6).level is Level.MEND


async def test_commits_that_wait_for_a_standby_that_is_not_there_are_found(own):
    """PostgreSQL would store nothing and say nothing."""
    _, settings = own
    database = Database(settings.database, name="doctor")
    try:
        async with connected(settings.database) as connection:
            await connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            await connection.execute("SELECT pg_reload_conf()")

            async def found() -> bool:
                async with database.connection() as session:
                    [finding] = await replication_checks.examine(session)
                return finding.level is Level.MEND and "nobody" in finding.what

            await until(found)
            await connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            await connection.execute("SELECT pg_reload_conf()")
    finally:
        await database.close()
