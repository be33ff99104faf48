"""Connections of the pool that outlived their server: an old primary, a firewall that forgot them, a restart."""

import pytest
from support.proxy import proxy_before
from support.tables import count
from support.waiting import until

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
