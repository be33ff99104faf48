"""Checks after a run: every row, its content by key, every confirmation, empty queues, an empty outbox.

Promises a list of sentences, empty where all is as it has to be. A run that fails here has no figure.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from benchmarks.events import Event
from benchmarks.load import Load, table_of
from benchmarks.services import Place
from contracts.registry import contract_types
from worker.families import plan
from worker.store.schema import metadata

_STATUS = {
    event: fold.status
    for entity in plan().entity_order
    for event, fold in entity.folds.items()
    if fold.status
}
_MOST = 3
"""Differences that are shown; the rest are counted."""


async def verify(place: Place, load: Load, queues: Sequence[str]) -> list[str]:
    """What is wrong after a run of this load."""
    problems = await facts(place.database, load)
    problems += await entities(place.database, load)
    problems += confirmations(load, await place.broker.confirmations())
    return [*problems, *await left_over(place, queues)]


async def left_over(place: Place, queues: Sequence[str]) -> list[str]:
    """What should have gone and has not."""
    problems = []
    if waiting := await place.broker.waiting(queues):
        problems.append(f"{waiting} messages are still in {', '.join(queues)}")
    if rows := await place.database.fetchval("SELECT count(*) FROM outbox"):
        problems.append(f"{rows} rows are still in the outbox")
    if letters := await place.database.fetchval("SELECT count(*) FROM dead_letters"):
        problems.append(f"{letters} dead letters")
    return problems


async def disk_bytes(connection: asyncpg.Connection, load: Load) -> int:
    """What the partitioned tables of this load's rows take on disk, with every partition and index."""
    total: int = await connection.fetchval(
        "SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::bigint "
        "FROM unnest($1::text[]) AS t(name), pg_partition_tree(name::regclass)",
        list(load.rows),
    )
    return total


async def stored(connection: asyncpg.Connection, load: Load) -> bool:
    """Whether all rows of the load can be seen; cheap until the last events are there."""
    last = load.events[-20:]
    for table, events in _by_table(last).items():
        keys = [event["id"] for event in events]
        found = await connection.fetchval(
            f"SELECT count(*) FROM {table} WHERE event_id = ANY($1::text[]::uuid[])"  # noqa: S608 (a name of the model)
            if table == "lifecycle_events"
            else f"SELECT count(*) FROM {table} WHERE {_key(table)} = ANY($1::text[]::uuid[])",  # noqa: S608 (as above)
            keys if table == "lifecycle_events" else [_key_value(event) for event in events],
        )
        if found < len(events):
            return False
    counts = [await count(connection, table, load) for table in load.rows]
    return all(found >= wanted for found, wanted in zip(counts, load.rows.values(), strict=True))


async def count(connection: asyncpg.Connection, table: str, load: Load) -> int:
    """How many rows of a table are this load's."""
    if load.since is None:
        return await connection.fetchval(f"SELECT count(*) FROM {table}")  # noqa: S608 (as above)
    key = next(iter(metadata.tables[table].primary_key)).name
    return await connection.fetchval(f"SELECT count(*) FROM {table} WHERE {key} > $1", load.since)  # noqa: S608 (as above)


async def counted(place: Place, load: Load, queues: Sequence[str]) -> list[str]:
    """As verify, for loads of a million: counts, not contents."""
    problems = [
        f"{table} holds {found} rows of this load, not {wanted}"
        for table, wanted in load.rows.items()
        if (found := await count(place.database, table, load)) != wanted
    ]
    heard = await place.broker.confirmations()
    confirmed = sum(len(one["items"]) for one in heard if one["outcome"] == "persisted")
    if confirmed != len(load):
        problems.append(f"{confirmed} events were confirmed, not {len(load)}")
    return [*problems, *await left_over(place, queues)]


async def last_commit(connection: asyncpg.Connection, load: Load) -> float | None:
    """When the last row of this load became visible, in seconds since 1970, by the server's own record, if it keeps one."""
    if await connection.fetchval("SHOW track_commit_timestamp") != "on":
        return None
    moments = [
        await connection.fetchval(
            f"SELECT extract(epoch FROM max(pg_xact_commit_timestamp(xmin)))::float8 FROM {table}"  # noqa: S608 (as above)
        )
        for table in [*load.rows, *_entity_tables(load)]
    ]
    return max(moment for moment in moments if moment is not None)


async def facts(connection: asyncpg.Connection, load: Load) -> list[str]:
    """Every row of the append-only tables, compared with its event."""
    problems: list[str] = []
    for table, events in _by_table(load.events).items():
        rows = {
            row["event_id"]: row
            for (text,) in await connection.fetch(f"SELECT to_jsonb(t)::text FROM {table} t")  # noqa: S608 (as above)
            for row in [orjson.loads(text)]
        }
        if len(rows) != len(events):
            problems.append(f"{table} holds {len(rows)} rows, not {len(events)}")
        wrong = [
            difference for event in events if (difference := _differs(event, rows.get(event["id"])))
        ]
        problems += [f"{table}: {text}" for text in wrong[:_MOST]]
        if len(wrong) > _MOST:
            problems.append(f"{table}: {len(wrong)} rows differ")
    return problems


def _differs(event: Event, row: Mapping[str, Any] | None) -> str | None:
    """What is wrong with the row of an event."""
    identity = event["id"]
    if row is None:
        return f"{identity} is missing"
    if row["source"] != event["source"] or len(row["content_digest"]) != len("\\x") + 32:
        return f"{identity} has another source, or no digest"
    if "entity_id" in row:
        same = row["data"] == event["data"] and row["type"] == event["type"]
        return None if same else f"{identity} has other data"
    own_names = contract_types()[event["type"]][1].key_fields  # a table may call its key otherwise
    for name, value in event["data"].items():
        if name not in row and name in own_names:
            continue
        if value is not None and not _same(row[name], value):
            return f"{identity} has {name} {str(row[name])[:60]!r}, not {str(value)[:60]!r}"
    return None


def _same(stored_: Any, value: Any) -> bool:
    if stored_ == value:
        return True
    if isinstance(stored_, str) and isinstance(value, str) and value[:2] in ("19", "20"):
        try:
            return datetime.fromisoformat(stored_) == datetime.fromisoformat(value)
        except ValueError:
            return False
    return False


async def entities(connection: asyncpg.Connection, load: Load) -> list[str]:
    """Every folded row: as many messages as it was told of, and the status of the latest."""
    problems: list[str] = []
    for entity in plan().entity_order:
        told: dict[str, list[Event]] = defaultdict(list)
        for event in load.events:
            if event["type"] in entity.folds:
                told[event["data"][entity.key]].append(event)
        if not told:
            continue
        rows = await connection.fetch(
            f"SELECT {entity.key}::text AS key, status, version, created_at FROM {entity.table.name} WHERE version > 0"  # noqa: S608 (as above)
        )
        found = {row["key"]: (row["status"], row["version"]) for row in rows}
        wanted = {
            key: (_STATUS[max(events, key=lambda event: event["time"])["type"]], len(events))
            for key, events in told.items()
        }
        wrong = [key for key in wanted if found.get(key) != wanted[key]]
        if wrong or len(found) != len(wanted):
            first = wrong[0] if wrong else ""
            problems.append(
                f"{entity.table.name}: {len(wrong)} of {len(wanted)} rows are wrong, such as {first}: "
                f"{found.get(first)} instead of {wanted.get(first)}"
            )
    return problems


def confirmations(load: Load, heard: Iterable[Mapping[str, Any]]) -> list[str]:
    """Every event was confirmed as persisted, none twice."""
    items = Counter(
        item["id"]
        for confirmation in heard
        if confirmation["outcome"] == "persisted"
        for item in confirmation["items"]
    )
    missing = sum(event["id"] not in items for event in load.events)
    repeated = sum(count > 1 for count in items.values())
    problems = [f"{missing} of {len(load)} events were not confirmed"] if missing else []
    return [*problems, f"{repeated} events were confirmed twice"] if repeated else problems


def _by_table(events: Iterable[Event]) -> dict[str, list[Event]]:
    tables: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        tables[table_of(event["type"])].append(event)
    return tables


def _entity_tables(load: Load) -> list[str]:
    types = {event["type"] for event in load.events}
    return [entity.table.name for entity in plan().entity_order if types & set(entity.folds)]


def _key(table: str) -> str:
    return next(fact.key[0] for fact in plan().fact_order if fact.table.name == table)


def _key_value(event: Event) -> str:
    """The first member of its key, which the table may call otherwise; else its id."""
    members = contract_types()[event["type"]][1].key_fields
    return str((members and event["data"].get(members[0])) or event["id"])
