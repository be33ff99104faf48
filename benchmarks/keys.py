"""What keys in the order of time, and partitions by month, buy once millions of rows are there.

The worker's own insert, without a broker, into three tables of logs with the same columns and indexes: the partitioned
one, one without partitions, and one whose keys are random (UUIDv4). In turns; rates as ratios to the first, and the bytes
of write-ahead log that a row takes, which is what random keys cost.
"""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import orjson
from rich.console import Console

from benchmarks.events import Maker
from benchmarks.figures import middle, ratio
from benchmarks.services import Services
from worker.decode import Decoder
from worker.families import families, plan
from worker.message import Delivery, Message, Properties
from worker.store.facts import fact_inserter

HEADS = ("keys", "table", "rows/s", "to the first", "spread", "WAL bytes for a row")
LOGS = "execution_logs"
_ROUNDS = 5
_STATEMENTS = 20
_ROWS_EACH = 500
_FILL_ROWS = 250_000


@dataclass
class _Kind:
    """A table, how its keys are made, and what was found, a figure a round."""

    keys: str
    says: str
    table: str
    random: bool = False
    rates: list[float] = field(default_factory=list)
    wal: list[float] = field(default_factory=list)


async def main(
    services: Services, console: Console, folder: Path, *, rows: int
) -> list[tuple[str, ...]]:
    """Fill each table with so many rows, insert into all in turns, print and write what was found."""
    kinds = [
        _Kind("UUIDv7", "a partition a month", LOGS),
        _Kind("UUIDv7", "without partitions", "logs_in_order"),
        _Kind("UUIDv4", "without partitions", "logs_at_random", random=True),
    ]
    async with services.place() as place:
        database = place.database
        for kind in kinds:
            if kind.table != LOGS:
                await database.execute(f"CREATE TABLE {kind.table} (LIKE {LOGS} INCLUDING ALL)")  # fmt: skip
            await fill(database, kind.table, rows, random=kind.random)
        for number in range(_ROUNDS):
            for kind in kinds[number % 3 :] + kinds[: number % 3]:
                await _insert(database, kind)
    rates = [{kind.table: kind.rates[at] for kind in kinds} for at in range(_ROUNDS)]
    lines = [_line(kind, rates) for kind in kinds]
    for line in lines:
        console.print(f"{rows:,} rows: " + ", ".join(f"{head} {text}" for head, text in zip(HEADS, line, strict=True)))  # fmt: skip
    found = [{"keys": k.keys, "table": k.says, "rates": k.rates, "wal": k.wal} for k in kinds]
    (folder / "keys.json").write_text(json.dumps({"rows": rows, "kinds": found}, indent=1))
    return lines


def _line(kind: _Kind, rates: list[dict[str, float]]) -> tuple[str, ...]:
    found = ratio(rates, kind.table, LOGS)
    assert found is not None  # noqa: S101 (every round has every table)
    rate = middle(rates, kind.table) or 0.0
    spread = f"{found.lowest:.2f} to {found.highest:.2f} ({found.rounds})"
    wal = sum(kind.wal) / len(kind.wal)
    return (kind.keys, kind.says, f"{rate:,.0f}", f"{found.median:.2f}x", spread, f"{wal:,.0f}")


async def _insert(database: asyncpg.Connection, kind: _Kind) -> None:
    """One round: statements of new rows, each a transaction, as the worker writes them."""
    inserter = fact_inserter(plan().facts["execution.logged"])
    batches = [_messages(random=kind.random) for _ in range(_STATEMENTS)]
    into: Any = _Into(database, kind.table)
    await database.execute("SET session_replication_role = replica")  # parents are not the point
    before = await database.fetchval("SELECT pg_current_wal_insert_lsn()::text")
    began = time.perf_counter()
    for batch in batches:
        await inserter.insert(into, batch)
    seconds = time.perf_counter() - began
    written = await database.fetchval(
        "SELECT (pg_current_wal_insert_lsn() - $1::text::pg_lsn)::float8", before
    )
    await database.execute("SET session_replication_role = DEFAULT")
    kind.rates.append(_STATEMENTS * _ROWS_EACH / seconds)
    kind.wal.append(written / (_STATEMENTS * _ROWS_EACH))


class _Into:
    """A connection on which the worker's statement for logs goes to another table."""

    def __init__(self, database: asyncpg.Connection, table: str) -> None:
        self._database = database
        self._table = table

    async def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run it."""
        return await self._database.fetch(statement.replace(LOGS, self._table, 1), *arguments)


def _messages(*, random: bool) -> list[Message]:
    """Logs as the worker has them before it writes, with keys of either kind."""
    decoder = Decoder(families()["execution-log"].contract)
    messages: list[Message] = []
    for tag, event in enumerate(Maker().logs(_ROWS_EACH), 1):
        if random:
            event["id"] = event["data"]["log_id"] = str(uuid4())
        body = orjson.dumps(event)
        delivery = Delivery("execution-log", tag, False, "", event["type"], body, Properties(), b"")
        messages += [item for item in decoder.decode(delivery) if isinstance(item, Message)]
    return messages


async def fill(
    database: asyncpg.Connection, table: str, rows: int, *, random: bool = False
) -> None:
    """Fill a table of logs up to so many rows of the past month; keys in the order of their time, or at random."""
    await database.execute("SET session_replication_role = replica")
    present = await database.fetchval(f"SELECT count(*) FROM {table}")  # noqa: S608 (a name of this module)
    statement = _FILL.format(table=table, key="gen_random_uuid()" if random else _IN_ORDER)
    while present < rows:
        count = min(_FILL_ROWS, rows - present)
        await database.execute(statement, present, count)
        present += count
    await database.execute("SET session_replication_role = DEFAULT")
    await database.execute(f"ANALYZE {table}")
    await database.execute("CHECKPOINT")


_IN_ORDER = """(lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '7'
        || substr(md5(n::text), 1, 3) || 'a' || substr(md5(n::text), 4, 15))::uuid"""
_FILL = """
INSERT INTO {table} (log_id, task_id, step_number, agent_type, action, status, output_summary, output_full,
    timestamp, duration_ms, event_id, source, content_digest, created_at)
SELECT key, gen_random_uuid(), n % 20, 'infra', 'plan apply refresh state', 'completed', 'module resource subnet',
    '{{"lines": ["gateway cluster node pool"], "exit_code": 0}}'::jsonb, moment, n % 30000, key, '/agents/bench-1',
    decode(md5(n::text), 'hex'), moment
FROM (
    SELECT n, moment, {key} AS key
    FROM (
        SELECT n, date_trunc('month', now()) + n * (now() - date_trunc('month', now())) * 0.9 / 20000000 AS moment
        FROM generate_series($1::bigint, $1::bigint + $2::bigint - 1) AS n
    ) AS moments
) AS keys
"""
