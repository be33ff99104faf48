"""Reading the tables after all: every row and dead letter is found in the ledger, or charged.

Promises memory that does not grow with the tables: rows are read through a cursor.
"""

import re
from collections import Counter
from uuid import UUID

import asyncpg
from sqlalchemy import Table

from worker.families import plan
from worker.store.database import Database
from worker.store.schema import Kind as TableKind
from worker.store.schema import tables_of_kind
from worker.torture.ledger import ACCEPTED, LETTER, ROW, SENT, Kind, Ledger
from worker.torture.verdict import Verdict

_PAGE = 5_000
_BODY_BYTES = 4_096
_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


async def read_tables(database: Database, ledger: Ledger, verdict: Verdict) -> dict[str, int]:
    """Mark in the ledger what is stored, charge what should not be; rows by table."""
    plan()  # names every table
    rows: dict[str, int] = {}
    async with database.transaction() as connection:
        for table in tables_of_kind(TableKind.FACT):
            rows[table.name] = await _read_rows(connection, table.name, ledger, verdict)
        rows["dead_letters"] = await _read_letters(connection, ledger, verdict)
        for table in tables_of_kind(TableKind.ENTITY):
            rows[table.name] = await _read_entities(connection, table, ledger, verdict)
        waiting = await connection.fetchval("SELECT count(*) FROM outbox")
        if waiting:
            verdict.charge("stuck", f"{waiting:,} rows of the outbox", waiting)
    return rows


async def letters_by_reason(database: Database) -> Counter[str]:
    """Dead letters, counted."""
    async with database.transaction() as connection:
        found = await connection.fetch("SELECT reason, count(*) FROM dead_letters GROUP BY reason")
    return Counter({row["reason"]: row["count"] for row in found})


async def _read_rows(
    connection: asyncpg.Connection, table: str, ledger: Ledger, verdict: Verdict
) -> int:
    count = 0
    sql = f'SELECT event_id FROM "{table}"'  # noqa: S608 (names of the model)
    async for row in connection.cursor(sql, prefetch=_PAGE):
        count += 1
        key = UUID(bytes=row["event_id"].bytes)
        number = ledger.number_of(key)
        if number is None:
            verdict.charge("unexpected", f"{key} is in {table} and was published by nobody")
        elif not ledger.add(number, ROW):
            verdict.charge("doubled", f"{key} has more than one row, the last one in {table}")
    return count


async def _read_letters(connection: asyncpg.Connection, ledger: Ledger, verdict: Verdict) -> int:
    count = 0
    sql = "SELECT id, message_id, batch_index, reason, substring(body for $1) AS body FROM dead_letters"
    async for row in connection.cursor(sql, _BODY_BYTES, prefetch=_PAGE):
        count += 1
        number = _whose(ledger, row)
        if number is None:
            verdict.charge("unexpected", f"dead letter {row['id']} was published by nobody")
            continue
        if not ledger.add(number, LETTER):
            text = f"{ledger.id_of(number)} has more than one dead letter, the last one {row['id']}"
            verdict.charge("doubled", text)
        kind = Kind(ledger.kinds[number])
        wanted = kind.reason
        if row["reason"] != wanted and (kind.bad or kind is Kind.RIVAL):
            text = (
                f"dead letter {row['id']} ({ledger.id_of(number)}, {wanted}) says {row['reason']}"
            )
            verdict.charge("unexpected", text)
    return count


def _whose(ledger: Ledger, row: asyncpg.Record) -> int | None:
    """The message that a letter holds: by its AMQP message id, or, where it came in a batch, by the id in its body."""
    if row["batch_index"] is None:
        number = ledger.find(row["message_id"])
        if number is not None:
            return number
    for found in _ID.finditer(row["body"]):
        number = ledger.find(found[0].decode())
        if number is not None:
            return number
    return None


async def _read_entities(
    connection: asyncpg.Connection, table: Table, ledger: Ledger, verdict: Verdict
) -> int:
    """Rows that nothing was said about, and, if all was published, rows that are known by name only."""
    name = table.name
    key, what = next(iter(table.primary_key)), table.info["entity_type"]
    complete = all(state & ACCEPTED for state in ledger.states if state & SENT)
    strange = await connection.fetch(
        f'SELECT "{key.name}"::text AS key, placeholder FROM "{name}" t WHERE (placeholder AND $2) OR '  # noqa: S608 (names of the model)
        "NOT (placeholder OR EXISTS (SELECT FROM lifecycle_events e WHERE e.entity_type = $1 "
        f'AND e.entity_id = t."{key.name}"::text AND e.tenant_id = t.tenant_id))',
        what,
        complete,
    )
    for row in strange:
        why = "is known by name only" if row["placeholder"] else "is there, and nobody spoke of it"
        verdict.charge("unexpected", f"{row['key']} in {name} {why}")
    count: int = await connection.fetchval(f'SELECT count(*) FROM "{name}"')  # noqa: S608 (as above)
    return count
