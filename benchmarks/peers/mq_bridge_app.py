"""mq-bridge: its Consumer, a handler in Python that validates, its SQL publisher, its AMQP publisher, then `ack`.

The order (poll a batch, insert, confirm, acknowledge) is the one of its documents for at-least-once loads. Its consumer
declares a classic queue, so it has one of its own: a weaker guarantee than a quorum queue's.
"""

import os
import signal
import sys
from typing import Any

from mq_bridge import Consumer, Message, Publisher

from benchmarks.peers import job

QUEUE = "bench.mq-bridge"
_BATCH = 500
_TASK = "INSERT INTO tasks (task_id, placeholder) VALUES (${payload:task_id}::uuid, true) ON CONFLICT DO NOTHING"
_INSERT = (
    "INSERT INTO execution_logs (log_id, tenant_id, task_id, step_number, agent_type, action, status, output_summary, "
    "output_full, timestamp, duration_ms, event_id, source, content_digest, created_at) VALUES ("
    "${payload:log_id}::uuid, ${payload:tenant_id}, ${payload:task_id}::uuid, ${payload:step_number}::int, "
    "${payload:agent_type}, ${payload:action}, ${payload:status}, ${payload:output_summary}, "
    "${payload:output_full}::jsonb, ${payload:timestamp}::timestamptz, ${payload:duration_ms}::bigint, "
    "${payload:event_id}::uuid, ${payload:source}, decode(${payload:content_digest}, 'hex'), "
    "${payload:created_at}::timestamptz) ON CONFLICT DO NOTHING"
)


def sql(query: str, table: str) -> Publisher:
    """A publisher that runs a statement for each message of a batch."""
    url = job.DATABASE_URL.replace("postgresql+asyncpg", "postgres")
    return Publisher.from_config(
        {"sqlx": {"url": url, "table": table, "insert_query": query, "max_connections": job.POOL}}
    )


def flat(message: Any) -> bytes:
    """A row as the flat JSON object that its statements read."""
    row = job.row(message, json_as_text=True)
    values = {
        str(name): value.hex() if isinstance(value, bytes) else value for name, value in row.items()
    }
    return job.orjson.dumps(values)


def main() -> None:
    """Poll, insert, confirm, acknowledge, until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    amqp = {"url": job.AMQP_URL}
    parents, rows = sql(_TASK, "tasks"), sql(_INSERT, "execution_logs")
    confirm = Publisher.from_config(
        {
            "amqp": {
                **amqp,
                "exchange": job.CONFIRMATIONS,
                "queue": os.environ["CONFIRMATION_KEY"],
                "no_declare_queue": True,
            }
        }
    )
    with Consumer.from_config(
        {"amqp": {**amqp, "queue": QUEUE, "prefetch_count": 1000}}
    ) as consumer:
        while True:
            batch, token = consumer.poll_batch(max=_BATCH, timeout_ms=1000)
            if token is None:
                continue
            events = [job.read(message.payload) for message in batch]
            rendered = [Message(flat(event)) for event in events]
            tasks = {
                event.fields.task_id: body for event, body in zip(events, rendered, strict=True)
            }
            parents.send_batch(list(tasks.values()))
            rows.send_batch(rendered)
            confirm.send_batch(
                [Message(job.confirmation(event, "mq-bridge")[1]) for event in events]
            )
            consumer.ack(token)


if __name__ == "__main__":
    main()
