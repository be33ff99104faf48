"""Monthly partitions: where a row lands, and adding a month beside writers."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from support.waiting import until

import worker.families
from contracts.identifiers import uuid7
from worker.families.execution_log import execution_logs
from worker.store import partitions
from worker.store.lifecycle import lifecycle_events
from worker.store.partitions import Month, ensure_partitions, partition_status, partitions_of

TASK = UUID(int=1)
LOG = """
INSERT INTO execution_logs (log_id, task_id, step_number, agent_type, action, status, timestamp, event_id, source,
    content_digest)
VALUES ($1, $2, 0, 'infra', 'plan', 'completed', now(), $1, '/agents/a', decode(repeat('00', 16), 'hex'))"""

EVENTS = """
INSERT INTO lifecycle_events (event_id, time, entity_type, entity_id, type, data, source, content_digest)
SELECT key, now(), 'task', $2, 'task.started', '{}', '/agents/a', decode(repeat('00', 16), 'hex')
FROM unnest($1::uuid[]) AS key
ON CONFLICT (event_id, tenant_id) DO NOTHING"""


@pytest.fixture
async def db(database_url):
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    await connection.execute("INSERT INTO tasks (task_id, request_text) VALUES ($1, 'x')", TASK)
    yield connection
    await connection.close()


@pytest.fixture
def patient(monkeypatch):
    """Adding a month waits for writers as long as a slow machine may need."""
    monkeypatch.setattr(partitions, "LOCK_TIMEOUT", "60s")


@pytest.fixture
async def engine(database_url):
    engine = create_async_engine(database_url, poolclass=NullPool)
    yield engine
    await engine.dispose()


def key_in(month):
    """A new key of a month."""
    moment = datetime(month.year, month.number, 14, tzinfo=UTC)
    return uuid7(int(moment.timestamp() * 1000))


async def log(db, key):
    """Store one log and return the partition that it landed in."""
    await db.execute(LOG, key, TASK)
    return await db.fetchval(
        "SELECT tableoid::regclass::text FROM execution_logs WHERE log_id = $1", key
    )


async def waiting(db, sessions):
    """Return when so many sessions of this database wait for a lock on a table."""
    query = (
        "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted AND locktype = 'relation'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )

    async def enough() -> bool:
        return await db.fetchval(query) >= sessions

    await until(enough)


async def shape(db, name):
    """What an index, a constraint or a column of a partition says, whatever its name."""
    indexes = await db.fetch("SELECT indexdef FROM pg_indexes WHERE tablename = $1", name)
    constraints = await db.fetch(
        "SELECT contype::text, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = $1::text::regclass",
        name,
    )
    columns = await db.fetch(
        "SELECT attname, attstorage::text, attcompression::text, attnotnull FROM pg_attribute"
        " WHERE attrelid = $1::text::regclass AND attnum > 0",
        name,
    )
    return (
        sorted(definition.partition(" USING ")[2] for (definition,) in indexes),
        sorted(map(tuple, constraints)),
        list(map(tuple, columns)),
    )


async def test_a_row_lands_in_the_month_of_its_key(db):
    """Present and future months, the first and the last key of a month; what no month takes lies in the default."""
    now = Month.of(datetime.now(UTC))
    for later in (0, 1, 12):
        assert await log(db, key_in(now.plus(later))) == now.plus(later).partition_of(
            "execution_logs"
        )
    first, end = now.bounds
    assert await log(db, first) == now.partition_of("execution_logs")
    assert await log(db, UUID(int=end.int - 1)) == now.partition_of("execution_logs")
    assert await log(db, end) == now.plus(1).partition_of("execution_logs")
    for outside in (now.plus(-1), now.plus(13)):
        assert await log(db, key_in(outside)) == "execution_logs_default"
    assert await log(db, uuid4()) == "execution_logs_default"
    assert await log(db, UUID(int=0)) == "execution_logs_default"
    assert await log(db, UUID(int=2**128 - 1)) == "execution_logs_default"


async def test_one_key_is_one_row_wherever_it_lies(db):
    """The idempotency key holds over the whole table: it holds the column that partitions it."""
    for key in (uuid7(), uuid4()):
        await log(db, key)
        with pytest.raises(asyncpg.UniqueViolationError):
            await log(db, key)


async def test_a_migrated_database_lacks_no_month(engine):
    """A year ahead is there from the start, for every partitioned table, by the bounds that the worker works out."""
    assert worker.families
    async with engine.connect() as connection:
        status = await partition_status(connection)
    now = Month.of(datetime.now(UTC))
    assert {one.table for one in status} >= {"lifecycle_events", "execution_logs", "trajectories"}
    for one in status:
        assert (one.missing, one.default_rows) == ((), 0)
        months = [now.plus(later) for later in range(13)]
        assert [(p.name, p.bounds) for p in one.partitions] == [
            *((month.partition_of(one.table), month.bounds) for month in months),
            (f"{one.table}_default", None),
        ]


async def test_a_month_takes_its_rows_out_of_the_default(db, engine):
    """A clock that ran ahead left rows in the default: adding their month moves them, and the rest stays."""
    later = Month.of(datetime.now(UTC)).plus(14)
    ahead, elsewhere = [key_in(later) for _ in range(3)], uuid4()
    for key in (*ahead, elsewhere):
        assert await log(db, key) == "execution_logs_default"
    async with engine.connect() as connection:
        added = await ensure_partitions(connection, execution_logs, months_ahead=14)
        assert await ensure_partitions(connection, execution_logs, months_ahead=14) == []
        status = {one.table: one for one in await partition_status(connection, months_ahead=15)}
    assert added == [
        later.plus(-1).partition_of("execution_logs"),
        later.partition_of("execution_logs"),
    ]
    assert status["execution_logs"].missing == (later.plus(1),)
    assert status["execution_logs"].default_rows == 1
    found = await db.fetch("SELECT log_id, tableoid::regclass::text FROM execution_logs")
    assert {tuple(row) for row in found} == {
        *((key, later.partition_of("execution_logs")) for key in ahead),
        (elsewhere, "execution_logs_default"),
    }
    assert await log(db, key_in(later)) == later.partition_of("execution_logs")


async def test_an_added_month_is_like_one_from_the_start(db, engine):
    """Keys, checks, foreign keys, indexes, compression: nothing tells an added month from a migrated one."""
    now = Month.of(datetime.now(UTC))
    default = await shape(db, "execution_logs_default")
    async with engine.connect() as connection:
        await ensure_partitions(connection, execution_logs, months_ahead=13)
    added = now.plus(13).partition_of("execution_logs")
    assert await shape(db, added) == await shape(db, now.partition_of("execution_logs"))
    assert await shape(db, "execution_logs_default") == default
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await db.execute(LOG, key_in(now.plus(13)), UUID(int=404))
    await log(db, key_in(now.plus(13)))
    await db.execute("DELETE FROM tasks")
    assert await db.fetchval("SELECT count(*) FROM execution_logs") == 0


async def write_logs(connection, number, keys):
    """One transaction of a worker: logs, then the task that they name."""
    await connection.executemany(LOG, [(key, UUID(int=100 + number)) for key in keys])
    await connection.execute(
        "INSERT INTO tasks (task_id, request_text) VALUES ($1, 'x')"
        " ON CONFLICT (task_id, tenant_id) DO UPDATE SET version = tasks.version + 1",
        UUID(int=100 + number),
    )


async def write_events(connection, number, keys):
    """One transaction of a worker: events of an entity, in a table without foreign keys."""
    await connection.execute(EVENTS, keys, str(number))


@pytest.mark.parametrize(
    ("table", "write"),
    [(execution_logs, write_logs), (lifecycle_events, write_events)],
    ids=("execution_logs", "lifecycle_events"),
)
async def test_a_month_beside_writers_loses_and_refuses_nothing(
    db, engine, patient, database_url, table, write
):
    """Two add months while four write into them, some rows again: no writer fails, and all is there, once."""
    now, stop = Month.of(datetime.now(UTC)), asyncio.Event()
    written, commits = [], asyncio.Queue()

    async def keep_writing(number):
        connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
        while not stop.is_set():
            keys = [key_in(now.plus(later)) for later in (0, 13, 14, 15)]
            again = written[-3:] if write is write_events else []
            async with connection.transaction():
                await write(connection, number, sorted([*keys, *again]))
            written.extend(keys)
            commits.put_nowait(number)
        await connection.close()

    async def add():
        async with engine.connect() as connection:
            return await ensure_partitions(connection, table, months_ahead=15)

    writers = [asyncio.create_task(keep_writing(number)) for number in range(4)]
    for _ in range(50):
        await commits.get()
    one, other = await asyncio.gather(add(), add())
    for _ in range(commits.qsize() + 50):
        await commits.get()
    stop.set()
    await asyncio.gather(*writers)
    assert sorted(one + other) == [now.plus(n).partition_of(table.name) for n in (13, 14, 15)]
    key = partitions.key_column(table)
    found = await db.fetch(f"SELECT {key} FROM {table.name}")
    assert sorted(key for (key,) in found) == sorted(written)
    assert await db.fetchval(f"SELECT count(*) FROM {table.name}_default") == 0


async def test_a_row_chosen_for_the_default_is_not_refused(db, engine, patient, database_url):
    """A writer whose statement waits while its month is added finds the month, not a refusal by the default."""
    month = Month.of(datetime.now(UTC)).plus(13)
    writer = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    holding = db.transaction()
    await holding.start()
    await db.execute(EVENTS, [key_in(month)], "first")
    async with engine.connect() as connection:
        adding = asyncio.create_task(ensure_partitions(connection, lifecycle_events, 13))
        await waiting(db, 1)
        writing = asyncio.create_task(writer.execute(EVENTS, [key_in(month)], "second"))
        await waiting(db, 2)
        await holding.commit()
        await adding
        await writing
    await writer.close()
    found = await db.fetch("SELECT tableoid::regclass::text FROM lifecycle_events")
    assert [name for (name,) in found] == [month.partition_of("lifecycle_events")] * 2


async def test_a_row_deleted_while_its_month_is_added_stays_deleted(db, engine, patient):
    """A task that goes with its logs between the copy and the lock takes the copies along."""
    await log(db, key_in(Month.of(datetime.now(UTC)).plus(13)))
    holding = db.transaction()
    await holding.start()
    await db.execute("DELETE FROM tasks")
    async with engine.connect() as connection:
        adding = asyncio.create_task(ensure_partitions(connection, execution_logs, 13))
        await waiting(db, 1)
        await holding.commit()
        await adding
    assert await db.fetchval("SELECT count(*) FROM execution_logs") == 0


async def test_a_month_waits_for_a_writer_only_so_long(db, engine, monkeypatch):
    """A writer that stays holds up the new month and is not held up: the wait ends, and nothing has changed."""
    monkeypatch.setattr(partitions, "LOCK_TIMEOUT", "200ms")
    later = Month.of(datetime.now(UTC)).plus(13)
    key = key_in(later)
    async with db.transaction():
        await db.execute(LOG, key, TASK)
        async with engine.connect() as connection:
            with pytest.raises(sa.exc.DBAPIError, match="lock timeout"):
                await ensure_partitions(connection, execution_logs, months_ahead=13)
            await connection.rollback()
            names = {one.name for one in await partitions_of(connection, execution_logs)}
    assert later.partition_of("execution_logs") not in names
    async with engine.connect() as connection:
        await ensure_partitions(connection, execution_logs, months_ahead=13)
    found = await db.fetchval(
        "SELECT tableoid::regclass::text FROM execution_logs WHERE log_id = $1", key
    )
    assert found == later.partition_of("execution_logs")


async def test_a_wider_partition_counts_as_its_months(db, engine):
    """What an operator has attached by hand is left as it is: months inside it are not missing."""
    now = Month.of(datetime.now(UTC))
    first, end = now.plus(13).first_key, now.plus(16).first_key
    await db.execute(
        f"CREATE TABLE by_hand PARTITION OF execution_logs FOR VALUES FROM ('{first}') TO ('{end}')"
    )
    async with engine.connect() as connection:
        added = await ensure_partitions(connection, execution_logs, months_ahead=16)
    assert added == [now.plus(16).partition_of("execution_logs")]


async def test_dropping_a_month_leaves_it_addable(db, engine):
    """Retention drops a whole month; while it is gone its rows land in the default, and come back with it."""
    month = Month.of(datetime.now(UTC)).plus(1)
    await db.execute(f"DROP TABLE {month.partition_of('execution_logs')}")
    key = key_in(month)
    assert await log(db, key) == "execution_logs_default"
    async with engine.connect() as connection:
        assert await ensure_partitions(connection, execution_logs) == [
            month.partition_of("execution_logs")
        ]
    found = await db.fetchval(
        "SELECT tableoid::regclass::text FROM execution_logs WHERE log_id = $1", key
    )
    assert found == month.partition_of("execution_logs")
