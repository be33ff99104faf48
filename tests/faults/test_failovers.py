"""Connections of the pool that outlived their server: an old primary, a firewall that forgot them, a restart."""

import asyncio

import pytest
from support.broker import client
from support.faults import by_way_of
from support.ledger import Ledger
from support.proxy import proxy_before
from support.standby import primary_and_standby
from support.tables import count, rows
from support.traffic import traffic
from support.verdicts import everything_is_accounted_for
from support.waiting import until
from support.workers import running_worker

from contracts.identifiers import uuid7
from worker.errors import Unavailable
from worker.store.database import Database

POOL = 8


async def fill(database: Database) -> None:
    """Open as many connections as the pool keeps, each used and given back."""
    from contextlib import AsyncExitStack

    async with AsyncExitStack() as stack:
        for _ in range(POOL):
            connection = await stack.enter_async_context(database.transaction())
            await connection.execute("SELECT 1")


async def write(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            "INSERT INTO outbox (id, family, payload) VALUES ($1, 'test', '{}')", uuid7()
        )


@pytest.mark.parametrize("how", ["swallow", "cut"])
async def test_one_failure_is_enough_to_leave_dead_connections(how, database_url):
    """The first attempt finds that the server is lost; the next one works, however many connections were open."""
    async with proxy_before(database_url) as (proxy, url):
        database = Database(url, name="test", statement_timeout=1)
        try:
            await fill(database)
            await proxy.inflict(how)
            await proxy.heal()
            if how == "swallow":
                with pytest.raises(Unavailable):
                    await write(database)
            else:
                await until(lambda: proxy.connections == 0)
            await write(database)
            await write(database)
        finally:
            await database.close()
    assert await count(database_url, "outbox") == 2


async def test_a_fault_of_the_broker_costs_no_other_connection(database_url):
    """A sweep waits for RabbitMQ inside a transaction: when it fails, PostgreSQL's other connections are as good as before."""
    database = Database(database_url, name="pooled")
    try:
        await fill(database)
        before = await _backends(database_url)
        with pytest.raises(Unavailable, match="RabbitMQ"):
            async with database.transaction():
                raise Unavailable("RabbitMQ took no confirmations")
        await fill(database)
        assert len(before & await _backends(database_url)) == POOL - 1
    finally:
        await database.close()


async def _backends(database_url: str) -> set[int]:
    found = await rows(
        database_url, "SELECT pid FROM pg_stat_activity WHERE application_name = 'pooled'"
    )
    return {row["pid"] for row in found}


async def test_the_old_primary_is_left_for_the_new_one(settings):
    """It answers still, and writes no more: the worker moves to the new one behind the same address, and goes on."""
    from worker.store.migrations import upgrade

    ledger = Ledger()
    with primary_and_standby() as pair:
        url = await asyncio.to_thread(pair.primary.create, "failing_over")
        await asyncio.to_thread(upgrade, url)
        async with proxy_before(url) as (proxy, by_proxy), client(settings.broker) as agent:
            # Short timeouts: the old primary never answers a commit that waits for its lost standby.
            here = by_way_of(settings, database_url=by_proxy)
            async with running_worker(here):
                async with traffic(agent, ledger):
                    await until(lambda: _stored_some(url))
                    old = proxy.connections
                    assert old > 0
                    proxy.target = (pair.standby.host, pair.standby.port)
                    await asyncio.to_thread(pair.fail_over)
                    published = len(ledger.published)
                    await until(lambda: len(ledger.published) > published + 50)
                await ledger.hear(agent)
        new = by_way_of(settings, database_url=pair.standby.url("failing_over"))
        await everything_is_accounted_for(ledger, new)


async def _stored_some(url: str) -> bool:
    return await count(url, "execution_logs") > 20
