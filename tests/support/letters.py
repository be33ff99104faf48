"""Dead letters in tests: making them, replaying them, and waiting for what the broker does by itself."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aio_pika

from contracts import registry
from support.waiting import until
from worker.broker import topology
from worker.broker.connection import BrokerConnection, connect
from worker.dead_letters import search
from worker.dead_letters.letter import Letter
from worker.dead_letters.replay import Replay, Replayed
from worker.dead_letters.search import Filters
from worker.settings import Settings
from worker.store.database import Database

EVERY = Filters(state="all")
UNRESOLVED = Filters()


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings.database, name="letters")
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def broker(settings: Settings) -> AsyncIterator[BrokerConnection]:
    connection = await connect(settings.broker, name="letters")
    try:
        yield connection
    finally:
        await connection.close()


async def letters(settings: Settings, filters: Filters = EVERY) -> list[Letter]:
    """Every letter that matches, oldest first."""
    async with opened(settings) as database:
        wanted = await search.chosen(database, filters)
        return [letter async for some in search.chunks(database, wanted) for letter in some]


async def letter(settings: Settings) -> Letter:
    """The one letter there is."""
    (only,) = await letters(settings)
    return only


async def replay(settings: Settings, filters: Filters = UNRESOLVED, **options: Any) -> Replayed:
    """Replay the letters that match."""
    async with opened(settings) as database:
        wanted = await search.chosen(database, filters)
        async with Replay(
            database, settings.broker, name="letters", max_bytes=settings.max_body_bytes, **options
        ) as work:
            return await work.run(wanted, filters.state)


async def waiting(settings: Settings, queue: str, count: int = 1) -> None:
    """Wait until this many messages are in a queue."""
    async with broker(settings) as connection:

        async def enough() -> bool:
            return (await topology.message_count(connection, queue) or 0) >= count

        await until(enough)


@asynccontextmanager
async def undeployed(settings: Settings, family: str) -> AsyncIterator[None]:
    """Meanwhile no queue is bound for a family; afterwards it is again."""
    routing_keys = registry.families()[family].routing_keys
    async with await aio_pika.connect(settings.broker) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue(topology.queue_name(family), ensure=False)
        for key in routing_keys:
            await queue.unbind(topology.MESSAGES, key)
        yield
        for key in routing_keys:
            await queue.bind(topology.MESSAGES, key)
