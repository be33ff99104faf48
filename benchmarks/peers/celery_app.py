"""Celery: a task a message over RabbitMQ, acknowledged late, SQLAlchemy with psycopg, a transaction a task.

Its queue holds Celery's own messages, so its backlog is made of `persist.delay(body)`; the queue is a quorum queue, as
the worker's are. The pool is prefork, Celery's default, with more processes than cores, as tasks wait for the database.
"""

import os

import orjson
from celery import Celery
from kombu import Exchange, Queue
from kombu.pools import producers
from sqlalchemy import create_engine
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from benchmarks.peers import job

QUEUE = "bench.celery"
CONCURRENCY = 8

app = Celery("bench", broker=job.AMQP_URL)
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    task_default_queue=QUEUE,
    task_queues=[
        Queue(
            QUEUE,
            Exchange(QUEUE, type="direct"),
            routing_key=QUEUE,
            queue_arguments={"x-queue-type": "quorum"},
        )
    ],
    worker_prefetch_multiplier=16,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"confirm_publish": True},
    # For many small tasks its documents advise against heart beats between workers (--without-mingle, --without-gossip).
)
_engine = create_engine(
    os.environ.get("DATABASE_URL", "postgresql://").replace("+asyncpg", "+psycopg"), pool_size=1
)
_confirmations = Exchange(job.CONFIRMATIONS, type="topic", no_declare=True)


@app.task(name="persist")
def persist(body: str) -> None:
    """Store one fact and confirm it."""
    message = job.read(body.encode())
    message.delivery.family = "worker.execution-log"
    with Session(_engine) as session, session.begin():
        for table, key, value in job.parents(message):
            session.execute(
                insert(table).values({key: value, "placeholder": True}).on_conflict_do_nothing()
            )
        session.execute(
            insert(job.table(message)).values(job.row(message)).on_conflict_do_nothing()
        )
    routing_key, confirmation = job.confirmation(message, "celery")
    with app.connection_or_acquire() as connection, producers[connection].acquire() as producer:
        producer.publish(
            orjson.loads(confirmation),
            serializer="json",
            exchange=_confirmations,
            routing_key=routing_key,
            delivery_mode=2,
        )


def fill(bodies: list[bytes]) -> None:
    """Make the backlog: one task a body."""
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        for body in bodies:
            persist.apply_async((body.decode(),), producer=producer)
