"""What others do to the worker's queues: deleting one, and putting one of another kind in its place."""

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
