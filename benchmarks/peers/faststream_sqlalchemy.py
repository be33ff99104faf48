"""FastStream and SQLAlchemy: a subscriber a queue, prefetch 100, a session a message, acknowledged when it returns."""

import asyncio
import logging

from faststream import FastStream
from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue
from faststream.rabbit.annotations import RabbitMessage

from benchmarks.peers import job
from benchmarks.peers.sessions import persist

broker = RabbitBroker(
    job.AMQP_URL,
    default_channel=Channel(prefetch_count=job.PREFETCH),
    log_level=logging.WARNING,
    logger=None,
)
confirmations = RabbitExchange(job.CONFIRMATIONS, type=ExchangeType.TOPIC, declare=False)


def subscribe(queue: str) -> None:
    """Handle the messages of one queue."""

    @broker.subscriber(RabbitQueue(queue, declare=False))
    async def handle(message: RabbitMessage) -> None:
        event = job.read(message.body, queue)
        await persist(event)
        routing_key, body = job.confirmation(event, "faststream")
        await broker.publish(body, exchange=confirmations, routing_key=routing_key, persist=True)


for name in job.QUEUES:
    subscribe(name)

if __name__ == "__main__":
    asyncio.run(FastStream(broker, logger=None).run())
