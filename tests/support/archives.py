"""Old rows for tests of retention: months of the past with their partitions, and one hash over a table, every column."""

from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from uuid import UUID

import asyncpg

from contracts.identifiers import uuid7
from worker.store.partitions import Month

SESSION = UUID(int=5)
FACT = "'/agents/a', decode(repeat('00', 16), 'hex')"


def months_ago(count: int) -> Month:
    return Month.of(datetime.now(UTC)).plus(-count)


def middle(month: Month) -> datetime:
    return month.start + timedelta(days=14)


def key_in(month: Month) -> UUID:
    """A new key of a month."""
    return uuid7(int(middle(month).timestamp() * 1000))


async def add_past_month(db: asyncpg.Connection, table: str, month: Month) -> str:
    """A partition of the past, as one that was made in time; its name."""
    first, end = month.bounds
    name = month.partition_of(table)
    await db.execute(
        f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ('{first}') TO ('{end}')"
    )
    return name


async def make_session(db: asyncpg.Connection, session: UUID = SESSION) -> None:
    await db.execute(
        "INSERT INTO agents (agent_id, name, type) VALUES ('a', 'A', 'infra') ON CONFLICT DO NOTHING"
    )
    await db.execute(
        "INSERT INTO agent_sessions (session_id, agent_id, started_at) VALUES ($1, 'a', now())",
        session,
    )


async def say(
    db: asyncpg.Connection,
    key: UUID,
    moment: datetime,
    session: UUID = SESSION,
    content: str = "hello",
) -> UUID:
    """One message of a session."""
    await db.execute(
        "INSERT INTO conversation_history (message_id, session_id, role, content, tokens_used, extensions, event_id,"
        " created_at, source, content_digest)"
        f""" VALUES ($1, $2, 'user', $3, NULL, '{{"a": 1.50, "b": null}}', $1, $4, {FACT})""",
        key,
        session,
        content,
        moment,
    )  # fmt: skip
    return key


async def talk(db: asyncpg.Connection, month: Month, count: int) -> list[UUID]:
    """This many messages of a month."""
    return [await say(db, key_in(month), middle(month)) for _ in range(count)]


async def decide(db: asyncpg.Connection, moment: datetime, **columns: str) -> UUID:
    """One decision."""
    key = uuid7()
    await db.execute(
        "INSERT INTO agent_decisions (decision_id, session_id, decision_type, input_context, confidence_score, version,"
        " created_at) VALUES ($1, $2, 'plan', '{\"x\": [1e400, 0.10, null]}', 0.1, 2, $3)",
        key,
        SESSION,
        moment,
    )
    return key


async def fingerprint(db: asyncpg.Connection, table: str) -> str:
    """A hash over every row and every column of a table, recorded_at and all."""
    lines = await db.fetch(f"SELECT t::text AS line FROM {table} t")
    return blake2b("\n".join(sorted(row["line"] for row in lines)).encode()).hexdigest()
