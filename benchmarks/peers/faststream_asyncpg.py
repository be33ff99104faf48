"""FastStream and hand-written asyncpg: as faststream_sqlalchemy, with a pool, prepared statements and a transaction a message."""

import asyncio
import logging
from functools import cache

import asyncpg
from faststream import FastStream
from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue
from faststream.rabbit.annotations import RabbitMessage

from benchmarks.peers import job
from worker.message import Message
from worker.store.bulk import is_json
from worker.store.schema import metadata

broker = RabbitBroker(
    job.AMQP_URL,
    default_channel=Channel(prefetch_count=job.PREFETCH),
    log_level=logging.WARNING,
    logger=None,
)
confirmations = RabbitExchange(job.CONFIRMATIONS, type=ExchangeType.TOPIC, declare=False)
pools: list[asyncpg.Pool] = []


@cache
def _insert(table: str, names: tuple[str, ...]) -> str:
    """INSERT … ON CONFLICT DO NOTHING of these columns."""
    columns = metadata.tables[table].c
    places = ", ".join(
        f"${at}::text::jsonb" if is_json(columns[name]) else f"${at}"
        for at, name in enumerate(names, 1)
    )
    listed = ", ".join(f'"{name}"' for name in names)
    return f"INSERT INTO {table} ({listed}) VALUES ({places}) ON CONFLICT DO NOTHING"  # noqa: S608 (names of the model)


async def persist(message: Message) -> None:
    """Store one message in a transaction; a repeated one changes nothing."""
    async with pools[0].acquire() as connection, connection.transaction():
        row = job.row(message, json_as_text=True)
        statement = _insert(job.table(message).name, tuple(row))
        if job.is_fact(message):
            for table, key, value in job.parents(message):
                await connection.execute(_insert(table.name, (key, "placeholder")), value, True)
            await connection.execute(statement, *row.values())
        elif await connection.execute(statement, *row.values()) == "INSERT 0 1":
            await job.fold(connection, message)


def subscribe(queue: str) -> None:
    """Handle the messages of one queue."""

    @broker.subscriber(RabbitQueue(queue, declare=False))
    async def handle(message: RabbitMessage) -> None:
        event = job.read(message.body, queue)
        await persist(event)
        routing_key, body = job.confirmation(event, "faststream")
        await broker.publish(body, exchange=confirmations, routing_key=routing_key, persist=True)


async def main() -> None:
    """Open the pool, then consume."""
    dsn = job.DATABASE_URL.replace("+asyncpg", "")
    pools.append(await asyncpg.create_pool(dsn, min_size=job.POOL, max_size=job.POOL))
    for name in job.QUEUES:
        subscribe(name)
    await FastStream(broker, logger=None).run()


if __name__ == "__main__":
    asyncio.run(main())
