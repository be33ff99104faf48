"""aio-pika and SQLAlchemy: `queue.consume` with a callback, prefetch 100, `message.process()`, a session a message."""

import asyncio
import signal

import aio_pika
from aio_pika.abc import AbstractExchange, AbstractIncomingMessage, AbstractRobustChannel

from benchmarks.peers import job
from benchmarks.peers.sessions import persist


async def consume(channel: AbstractRobustChannel, exchange: AbstractExchange, name: str) -> None:
    """Handle the messages of one queue."""
    queue = await channel.get_queue(name)

    async def handle(message: AbstractIncomingMessage) -> None:
        async with message.process(requeue=True):
            event = job.read(message.body, name)
            await persist(event)
            routing_key, body = job.confirmation(event, "aio-pika")
            confirmation = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await exchange.publish(confirmation, routing_key, mandatory=False)

    await queue.consume(handle)


async def main() -> None:
    """Connect, consume, and wait for SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    connection = await aio_pika.connect_robust(job.AMQP_URL)
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        await channel.set_qos(prefetch_count=job.PREFETCH)
        exchange = await channel.get_exchange(job.CONFIRMATIONS)
        for name in job.QUEUES:
            await consume(channel, exchange, name)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
