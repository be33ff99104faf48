"""Every metric, in one place: its name, what it means, and what to do about it. The only importer of prometheus_client.

Spans come later. Labels are families, outcomes and reasons of closed sets: never a tenant, a source or a key.
"""

from collections.abc import Iterable
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from contracts.confirmation import Reason

CONTENT_TYPE = CONTENT_TYPE_LATEST
REGISTRY = CollectorRegistry()

messages = Counter(
    "worker_messages_total",
    "Messages settled, by outcome (persisted, duplicate, rejected). The rate of work done.",
    ["family", "outcome"],
    registry=REGISTRY,
)
rejected = Counter(
    "worker_rejected_total",
    "Messages that became dead letters, by reason. A rise of invalid or unstorable: look at 'worker dead-letters list'.",
    ["family", "reason"],
    registry=REGISTRY,
)
transactions = Counter(
    "worker_transactions_total",
    "Transactions by result (committed, invalid: bisected next, unavailable: tried again).",
    ["family", "result"],
    registry=REGISTRY,
)
batch_messages = Histogram(
    "worker_batch_messages",
    "Messages a transaction. Near the maximum under load; near 1 when idle.",
    ["family"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10_000),
    registry=REGISTRY,
)
transaction_seconds = Histogram(
    "worker_transaction_seconds",
    "Seconds from the first statement to the commit. A rise: the database is slow; look there first.",
    ["family"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 30),
    registry=REGISTRY,
)
in_hand = Gauge(
    "worker_in_hand",
    "Deliveries taken from the broker and not yet settled. Stuck above 0 without transactions: see the log.",
    ["family"],
    registry=REGISTRY,
)
attached = Gauge(
    "worker_attached",
    "1 while the family's queues are consumed. 0 for more than a minute: the broker or the queue is gone.",
    ["family"],
    registry=REGISTRY,
)
paused = Gauge(
    "worker_paused",
    "1 while a family is paused because most of its messages are refused. Look for a bad deployment.",
    ["family"],
    registry=REGISTRY,
)
outbox_published = Counter(
    "worker_confirmation_events_total",
    "Confirmation events that the broker took, by kind (event, reply).",
    ["kind"],
    registry=REGISTRY,
)
outbox_failed = Counter(
    "worker_confirmation_failures_total",
    "Publishes of confirmations that were refused or lost; they are tried again.",
    registry=REGISTRY,
)
outbox_swept = Counter(
    "worker_outbox_swept_total",
    "Outbox rows that a sweep published because a worker had died in between. Some after a crash are normal.",
    registry=REGISTRY,
)
replies_ignored = Counter(
    "worker_replies_ignored_total",
    "Messages whose reply_to names a queue outside WORKER_REPLY_QUEUES. Tell the publisher, or widen the setting.",
    ["family"],
    registry=REGISTRY,
)
replies_given_up = Counter(
    "worker_replies_given_up_total",
    "Replies whose address makes RabbitMQ close the connection. Somebody made the address up; the event was published.",
    registry=REGISTRY,
)
letter_headers_ignored = Counter(
    "worker_letter_headers_ignored_total",
    "Messages with an x-dead-letter-id whose body is not that letter's. Somebody made the header up.",
    ["family"],
    registry=REGISTRY,
)
nul_characters_replaced = Counter(
    "worker_nul_characters_replaced_total",
    "NUL characters stored as U+2400. The publisher sends binary data as text.",
    ["family"],
    registry=REGISTRY,
)
suspects = Counter(
    "worker_suspects_total",
    "Messages handled alone because they may have killed a worker. A rise after crashes: look for delivery_limit letters.",
    ["family"],
    registry=REGISTRY,
)
ledger_missing = Gauge(
    "worker_ledger_missing",
    "Numbered events that never came, at two looks five minutes apart. A rise: 'worker reconcile' names them.",
    registry=REGISTRY,
)
ledger_doubled = Gauge(
    "worker_ledger_doubled",
    "Numbered events that were stored under two keys. A rise: 'worker reconcile' names them.",
    registry=REGISTRY,
)
restarts = Counter(
    "worker_restarts_total",
    "Times that the supervisor of --processes has started this process again. A rise: see 'process died' in the log.",
    registry=REGISTRY,
)
reconnections = Counter(
    "worker_reconnections_total",
    "Connections to RabbitMQ made after the first.",
    registry=REGISTRY,
)


def exposition() -> bytes:
    """All metrics in the Prometheus text format."""
    return generate_latest(REGISTRY)


def declare_families(families: Iterable[str]) -> None:
    """Make every family's series exist from the start, so that a rate of 0 is seen as 0."""
    for family in families:
        for outcome in ("persisted", "duplicate", "rejected"):
            messages.labels(family, outcome)
        for result in ("committed", "invalid", "unavailable"):
            transactions.labels(family, result)
        for reason in get_args(Reason):
            rejected.labels(family, reason)
        for counter in (replies_ignored, letter_headers_ignored, nul_characters_replaced, suspects):
            counter.labels(family)
        for gauge in (in_hand, attached, paused):
            gauge.labels(family).set(0)
        batch_messages.labels(family)
        transaction_seconds.labels(family)
