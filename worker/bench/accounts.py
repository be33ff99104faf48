"""Reading the place after a measurement: every message has its row and its confirmation, and nothing else is there.

Promises a sentence for everything that is missing or too much; memory grows by an id a message only.
"""

from collections import Counter
from collections.abc import Collection
from uuid import UUID

from contracts.registry import families
from worker.bench.hearing import Hearing
from worker.bench.results import Accounts
from worker.broker import topology
from worker.broker.connection import BrokerConnection
from worker.families import plan
from worker.store.database import Database
from worker.store.schema import Kind, tables_of_kind

_PAGE = 5_000


async def account(
    database: Database,
    connection: BrokerConnection,
    hearing: Hearing,
    published: Collection[UUID],
    stored: Collection[UUID],
    problems: list[str],
) -> Accounts:
    """Hold what was published (and by the database stage stored) against rows, confirmations, queues and outbox."""
    rows = await _rows(database)
    expected = {*published, *stored}
    unconfirmed = hearing.missing(published)
    found = [
        *problems,
        *_told(len(expected - rows.keys()), "messages have no row"),
        *_told(sum(times > 1 for times in rows.values()), "messages have more than one row"),
        *_told(len(rows.keys() - expected), "rows were published by nobody"),
        *_told(unconfirmed, "messages were not confirmed as persisted"),
        *(f"{count:,} messages were confirmed as {name}" for name, count in hearing.others.items()),
        *_told(await _count(database, "dead_letters"), "dead letters"),
        *_told(await _count(database, "outbox"), "rows are left in the outbox"),
        *await _waiting(connection),
    ]
    return Accounts(
        len(published) + len(stored), rows.total(), len(published) - unconfirmed, tuple(found)
    )


def _told(count: int, what: str) -> list[str]:
    return [f"{count:,} {what}"] if count else []


async def _rows(database: Database) -> Counter[UUID]:
    """How often each message is in a table."""
    plan()  # names every table
    rows: Counter[UUID] = Counter()
    async with database.transaction() as connection:
        for table in tables_of_kind(Kind.FACT):
            sql = f'SELECT event_id FROM "{table.name}"'  # noqa: S608 (names of the model)
            async for row in connection.cursor(sql, prefetch=_PAGE):
                rows[row["event_id"]] += 1
    return rows


async def _count(database: Database, table: str) -> int:
    async with database.transaction() as connection:
        count: int = await connection.fetchval(f'SELECT count(*) FROM "{table}"')  # noqa: S608 (as above)
    return count


async def _waiting(connection: BrokerConnection) -> list[str]:
    """What is left in the queues of the wire."""
    found = []
    for queue in topology.topology(families().values()).queues:
        waiting = await topology.message_count(connection, queue.name)
        if waiting:
            found.append(f"{waiting:,} messages are left in {queue.name}")
    return found
