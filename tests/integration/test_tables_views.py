"""The views over tasks and placeholders, each seen with rows that it must and must not show."""

import json
import tomllib
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

VIEWS = tomllib.loads(Path(__file__).parents[1].joinpath("data_model.toml").read_text())["views"]
NOON = "2026-11-21T12:00:00Z"


@pytest.fixture
async def db(database_url):
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    yield connection
    await connection.close()


async def task(db, number, **columns):
    """A task with this number as its key."""
    row = {"task_id": str(UUID(int=number)), "request_text": "x", "created_at": NOON} | columns
    await db.execute(
        f"INSERT INTO tasks ({', '.join(row)})"
        f" SELECT {', '.join(f'r.{name}' for name in row)} FROM jsonb_populate_record(NULL::tasks, $1::jsonb) r",
        json.dumps(row),
    )
    return UUID(int=number)


async def event(db, key, name, minute, attempt=None):
    """A lifecycle event of a task, so many minutes after noon."""
    await db.execute(
        "INSERT INTO lifecycle_events (event_id, time, entity_type, entity_id, type, attempt, data, source,"
        " content_digest) VALUES (gen_random_uuid(), $1::text::timestamptz, 'task', $2, $3, $4, '{}', '/a',"
        " decode(repeat('00', 16), 'hex'))",
        f"2026-11-21T12:{minute:02}:00Z",
        str(key),
        name,
        attempt,
    )


async def depends(db, one, other, tenant="default"):
    await db.execute(
        "INSERT INTO task_dependencies (task_id, depends_on_task_id, tenant_id, event_id, source, content_digest)"
        " VALUES ($1, $2, $3, gen_random_uuid(), '/a', decode(repeat('00', 16), 'hex'))",
        UUID(int=one),
        UUID(int=other),
        tenant,
    )


async def anomalies(db):
    found = await db.fetch("SELECT task_id, anomaly FROM task_anomalies")
    return sorted((row["task_id"].int, row["anomaly"]) for row in found)


@pytest.mark.parametrize("name", VIEWS)
async def test_views_ask_as_their_reader(db, name):
    """A view has the columns of the page and never lends its owner's rights."""
    columns = await db.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_name = $1", name
    )
    assert set(VIEWS[name]) <= {column for (column,) in columns}
    options = await db.fetchval("SELECT reloptions FROM pg_class WHERE relname = $1", name)
    assert options == ["security_invoker=true"]


async def test_active_tasks_are_those_not_at_their_end(db):
    """Four statuses are active; a task that was only named is not, one that was started before its creation came is."""
    statuses = ["pending", "approved", "executing", "retrying"]
    statuses += ["completed", "failed", "rejected", "cancelled"]
    for number, status in enumerate(statuses):
        await task(db, number, status=status)
    await task(db, 20, request_text=None, placeholder=True, status="pending")
    await task(db, 21, request_text=None, placeholder=True, status="executing", version=1)
    found = await db.fetch("SELECT task_id FROM active_tasks")
    assert sorted(row["task_id"].int for row in found) == [0, 1, 2, 3, 21]


async def test_times_that_cannot_be_are_anomalies(db):
    """Finished before started, completed without a start, started before created; a plain life is none."""
    early, late = "2026-11-21T13:00:00Z", "2026-11-21T14:00:00Z"
    await task(db, 1, status="completed", started_at=early, completed_at=late)
    await task(db, 2, status="failed", started_at=late, completed_at=early)
    await task(db, 3, status="completed", completed_at=early)
    await task(db, 4, status="executing", started_at="2026-11-21T11:59:59Z")
    await task(db, 5, status="failed", completed_at=early)
    assert await anomalies(db) == [
        (2, "finished_before_started"),
        (3, "completed_without_start"),
        (4, "started_before_created"),
    ]


async def test_an_end_of_an_older_attempt_is_an_anomaly(db):
    """A failure before its retry is how retries begin; one after it, or a completion, changed no status and shows."""
    plain = await task(db, 1, status="executing", attempt=2, started_at=NOON)
    await event(db, plain, "task.failed", 1)
    await event(db, plain, "task.retrying", 2, 2)
    late = await task(db, 2, status="executing", attempt=2, started_at=NOON)
    await event(db, late, "task.retrying", 2, 2)
    await event(db, late, "task.failed", 3, 1)
    done = await task(db, 3, status="executing", attempt=2, started_at=NOON)
    await event(db, done, "task.completed", 1)
    await event(db, done, "task.retrying", 2, 2)
    ended = await task(db, 4, status="cancelled", attempt=2, started_at=NOON)
    await event(db, ended, "task.retrying", 2, 2)
    await event(db, ended, "task.cancelled", 3)
    assert await anomalies(db) == [(2, "older_attempt_ended"), (3, "older_attempt_ended")]


async def test_cycles_of_dependencies_are_found_once_each(db):
    """Two rings that share nothing are two rows; chains into them, and the same keys in another tenant, are none."""
    for number in range(1, 8):
        await task(db, number)
    for one, other in [(1, 2), (2, 3), (3, 1), (4, 1), (5, 6), (6, 5), (6, 7), (4, 7)]:
        await depends(db, one, other)
    for number in (1, 2):
        await task(db, number, tenant_id="acme")
    await depends(db, 2, 1, "acme")
    found = await db.fetch("SELECT * FROM task_dependency_cycles")
    rings = sorted(([key.int for key in row["task_ids"]], row["size"]) for row in found)
    assert rings == [([1, 2, 3], 3), ([5, 6], 2)]
    assert {row["tenant_id"] for row in found} == {"default"}


async def test_orphans_are_placeholders_of_every_entity_with_their_age(db):
    """What was named and never came, from every entity table."""
    await task(db, 1)
    await task(db, 2, request_text=None, placeholder=True)
    await db.execute(
        "INSERT INTO training_jobs (job_id, tenant_id, placeholder, created_at)"
        " VALUES ($1, 'acme', true, now() - interval '2 hours')",
        UUID(int=3),
    )
    found = {row["table_name"]: row for row in await db.fetch("SELECT * FROM orphans")}
    assert set(found) == {"tasks", "training_jobs"}
    job = found["training_jobs"]
    assert (job["entity_id"], job["tenant_id"]) == (str(UUID(int=3)), "acme")
    assert timedelta(hours=2) <= job["age"] < timedelta(hours=2, minutes=1)


async def test_orphans_take_in_a_later_family(db):
    """A migration that adds an entity table calls rebuild_orphans, and the view's grants stay."""
    await db.execute("GRANT SELECT ON orphans TO PUBLIC")
    await db.execute(
        "CREATE TABLE things (thing_id uuid, tenant_id text, placeholder boolean, created_at timestamptz,"
        " PRIMARY KEY (thing_id, tenant_id))"
    )
    await db.execute("INSERT INTO things VALUES ($1, 'default', true, now())", UUID(int=9))
    await db.execute("SELECT rebuild_orphans()")
    assert await db.fetchval("SELECT table_name FROM orphans") == "things"
    grants = "SELECT has_table_privilege('public', 'orphans', 'SELECT')"
    assert await db.fetchval(grants)
    await db.execute("SELECT rebuild_orphans('things')")
    await db.execute("DROP TABLE things")
    assert await db.fetchval("SELECT count(*) FROM orphans") == 0
