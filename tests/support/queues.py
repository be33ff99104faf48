"""What others do to the worker's queues: deleting one, and putting one of another kind in its place."""

import asyncio
from typing import Any

import aio_pika


async def delete(url: str, *names: str) -> None:
    """Delete queues, full or not."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for name in names:
            await channel.queue_delete(name)


async def replace_by_classic(url: str, name: str) -> None:
    """Put a classic queue where a quorum queue was."""
    await delete(url, name)
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_queue(name, durable=True)


async def length(url: str, name: str) -> int:
    """How many messages are ready in a queue."""
    return int((await _declared(url, name)).message_count or 0)


async def consumers(url: str, name: str) -> int:
    """How many consumers a queue has."""
    return int((await _declared(url, name)).consumer_count or 0)


async def _declared(url: str, name: str) -> Any:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        return (await channel.declare_queue(name, passive=True)).declaration_result


async def hand_out(url: str, name: str, count: int, times: int) -> None:
    """Take so many messages into hand and lose the connection, again and again, as outages make workers do."""
    for _ in range(times):
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=count)
            queue = await channel.get_queue(name, ensure=False)
            taken = asyncio.Semaphore(0)

            async def take(_: object, taken: asyncio.Semaphore = taken) -> None:
                taken.release()

            await queue.consume(take)
            async with asyncio.timeout(60):
                for _ in range(count):
                    await taken.acquire()
