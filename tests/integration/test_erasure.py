"""Erasure: what goes, what stays, what a repetition does then, and that sessions are kept apart."""

import asyncio
import json

import pytest
import sqlalchemy as sa
from support.events import created, decoded, logged
from support.tables import connected, count, rows
from support.waiting import until

from contracts.identifiers import uuid7
from contracts.task_lifecycle import TaskCompleted, TaskDependsOn
from worker.families import plan
from worker.repositories.errors import BadQuery, NotFound, Refused
from worker.repositories.groups.tasks import ExecutionLogRepository, TaskRepository
from worker.repositories.repository import Repository
from worker.repositories.scope import Scope
from worker.repositories.service import DatabaseService
from worker.settings import Settings
from worker.store.persist import Persister
from worker.store.schema import metadata, owned_by
from worker.store.writer import Writer

SCOPE = Scope("default")


@pytest.fixture
async def service(database_url):
    settings = Settings.load(database_url=database_url, amqp_url="amqp://not-used", name="test")
    async with DatabaseService(settings) as service:
        yield service


async def persist(service, *events):
    """As messages."""
    persister = Persister(service.database, Writer(plan()), "task-lifecycle", "agent.replies.*")
    return {one.outcome for one in (await persister.persist(decoded(*events))).outcomes}


async def erase(service, key, **given):
    async with service.transaction(SCOPE) as work:
        return await work.repository(TaskRepository).erase(
            key, by="ada", reason="asked to", **given
        )


async def test_erasing_a_task_takes_all_that_it_owns_and_no_more(service, database_url):
    """Its parts and theirs, their logs and dependencies, in its tenant; the content of their events; nobody else's."""
    root, child, grandchild, other = (uuid7() for _ in range(4))
    events = [
        created(root, request_text="secret"),
        created(child, parent_task_id=root, request_text="secret"),
        created(grandchild, parent_task_id=child, request_text="secret"),
        created(other, request_text="public"),
        created(root, tenant="acme", request_text="public"),
        created(tenant="acme", parent_task_id=root, request_text="public"),
        logged(root, tenant="acme", action="public"),
        *(logged(task, action="secret") for task in (root, child, child, grandchild)),
        logged(other, action="public"),
        TaskDependsOn(task_id=other, depends_on_task_id=child).event(source="/a"),
    ]
    await persist(service, *events)
    erased = await erase(service, root)
    assert erased.rows == {"tasks": 3, "execution_logs": 4, "task_dependencies": 1}
    assert erased.events_blanked == 3

    left = {
        row["request_text"] for row in await rows(database_url, "SELECT request_text FROM tasks")
    }
    assert left == {"public"}
    assert await count(database_url, "tasks") == 3
    assert await count(database_url, "execution_logs") == 2
    for table in ("lifecycle_events", "tasks", "execution_logs", "outbox"):
        held = await rows(database_url, f"SELECT x::text AS row FROM {table} x")
        assert not [one for one in held if "secret" in one["row"]], table
    [entry] = await rows(
        database_url, "SELECT * FROM lifecycle_events WHERE type = 'record.erased'"
    )
    assert (entry["entity_type"], entry["entity_id"]) == ("task", str(root))
    told = json.loads(entry["data"])
    assert (told["by"], told["reason"], told["rows"]["tasks"]) == ("ada", "asked to", 3)


async def test_an_erased_task_stays_erased_when_its_messages_come_again(service, database_url):
    """They are duplicates; news of it makes a placeholder that holds the news alone; a log entry comes back."""
    key = uuid7()
    event, entry = created(key, request_text="secret"), logged(key)
    await persist(service, event, entry)
    await erase(service, key)
    assert await persist(service, event) == {"duplicate"}
    assert await count(database_url, "tasks") == 0
    assert await persist(service, TaskCompleted(task_id=key).event(source="/a")) == {"persisted"}
    [row] = await rows(database_url, "SELECT placeholder, request_text, status FROM tasks")
    assert row == {"placeholder": True, "request_text": None, "status": "completed"}
    assert await persist(service, entry) == {"persisted"}
    assert await count(database_url, "execution_logs") == 1


async def test_one_log_entry_can_be_erased(service, database_url):
    """The task stays, and so does the record of who did it."""
    key, log_id = uuid7(), uuid7()
    await persist(service, created(key), logged(key, log_id=log_id), logged(key))
    async with service.transaction(SCOPE) as work:
        logs = work.repository(ExecutionLogRepository)
        assert (await logs.erase(log_id, by="ada", reason="r")).rows == {"execution_logs": 1}
    assert await count(database_url, "tasks") == 1
    assert await count(database_url, "execution_logs") == 1
    [entry] = await rows(
        database_url, "SELECT * FROM lifecycle_events WHERE type = 'record.erased'"
    )
    assert (entry["entity_type"], entry["entity_id"]) == ("execution_logs", str(log_id))


async def test_what_is_not_there_or_not_explained_is_not_erased(service, database_url):
    """Nor what is another tenant's."""
    key = uuid7()
    await persist(service, created(key, tenant="acme"))
    with pytest.raises(NotFound, match=f"there is no task {key}"):
        await erase(service, key)
    with pytest.raises(BadQuery, match="needs a name"):
        async with service.transaction(Scope("acme")) as work:
            await work.repository(TaskRepository).erase(key, by="ada", reason=" ")
    assert await count(database_url, "tasks") == 1


@pytest.mark.parametrize(
    "action", ["ON DELETE RESTRICT", "", "DEFERRABLE INITIALLY DEFERRED"], ids=str
)
async def test_what_an_audit_trail_names_is_kept(action, service, database_url):
    """A RESTRICT refuses with a sentence, and so does a key that says nothing, at once, though it waits; nothing is gone."""
    key = uuid7()
    await persist(service, created(key), logged(key))
    async with connected(database_url) as connection:
        await connection.execute(
            "CREATE TABLE audit (task_id uuid, tenant_id text, CONSTRAINT fk_audit_task_id "
            f"FOREIGN KEY (task_id, tenant_id) REFERENCES tasks {action})"
        )
        await connection.execute("INSERT INTO audit VALUES ($1, 'default')", key)
    with pytest.raises(Refused, match=f"task {key} cannot be erased: .*PostgreSQL keeps it"):
        await erase(service, key)
    assert await count(database_url, "execution_logs") == 1


async def test_what_an_open_transaction_names_is_erased_after_it(service, database_url):
    """Who creates a row keeps its parent until the commit: the erasure waits, and takes the row along."""
    key = uuid7()
    await persist(service, created(key))
    async with asyncio.TaskGroup() as tasks, service.transaction(SCOPE) as work:
        await work.repository(ExecutionLogRepository).create(logged(key))
        erasing = tasks.create_task(erase(service, key))
        await until(lambda: _waits(database_url))
    assert erasing.result().rows == {"tasks": 1, "execution_logs": 1}
    assert await count(database_url, "execution_logs") == 0


async def _waits(url: str) -> bool:
    found = await rows(
        url,
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
    return bool(found)


@pytest.fixture
def reviews():
    """An entity that a task owns and that owns nothing itself, for as long as the test runs."""
    table = sa.Table(
        "reviews",
        metadata,
        sa.Column("review_id", sa.Uuid, primary_key=True),
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("task_id", sa.Uuid, nullable=False),
        owned_by("task_id", "tasks.task_id"),
        info={"kind": "entity", "entity_type": "review"},
    )
    yield table
    metadata.remove(table)


async def test_the_history_of_every_entity_that_goes_is_blanked(service, database_url, reviews):
    """Of those that own nothing, too."""
    key, review = uuid7(), uuid7()
    await persist(service, created(key))
    async with connected(database_url) as connection:
        await connection.execute(
            "CREATE TABLE reviews (review_id uuid, tenant_id text, task_id uuid, FOREIGN KEY "
            "(task_id, tenant_id) REFERENCES tasks ON DELETE CASCADE)"
        )
        await connection.execute("INSERT INTO reviews VALUES ($1, 'default', $2)", review, key)
        await connection.execute(
            "INSERT INTO lifecycle_events (event_id, time, entity_type, entity_id, type, data, source, content_digest) "
            "VALUES (gen_random_uuid(), now(), 'review', $1, 'review.made', '{\"text\": \"secret\"}', '/a', $2)",
            str(review),
            bytes(16),
        )
    erased = await erase(service, key)
    assert erased.rows == {"tasks": 1, "reviews": 1}
    assert erased.events_blanked == 2
    held = await rows(database_url, "SELECT x::text AS row FROM lifecycle_events x")
    assert not [one for one in held if "secret" in one["row"]]


@pytest.fixture
def notes():
    """A table that belongs to sessions, for as long as the test runs."""
    table = sa.Table(
        "notes",
        metadata,
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("session_id", sa.Uuid, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        info={"kind": "fact", "session_column": "session_id"},
    )
    yield type("Notes", (Repository,), {"table": table})
    metadata.remove(table)


async def test_a_session_never_reads_or_erases_another_ones_rows(service, database_url, notes):
    """Nor can anybody forget to say which session, or ask for another one by a filter."""
    ours, theirs, note = uuid7(), uuid7(), uuid7()
    async with connected(database_url) as connection:
        await connection.execute(
            "CREATE TABLE notes (id uuid, tenant_id text, session_id uuid, created_at timestamptz DEFAULT now())"
        )
        await connection.executemany(
            "INSERT INTO notes VALUES ($1, $2, $3)",
            [(note, "default", theirs), (uuid7(), "default", ours), (uuid7(), "acme", ours)],
        )
    async with service.transaction(Scope("default", session=ours)) as work:
        repository = work.repository(notes)
        assert [row["session_id"] for row in (await repository.find()).rows] == [ours]
        assert await repository.count() == 1
        assert await repository.get(note) is None
        with pytest.raises(NotFound):
            await repository.erase(note, by="ada", reason="r")
        with pytest.raises(BadQuery, match="no field 'session_id'"):
            await repository.find({"session_id": theirs})
        fence = await work.connection.execute(sa.text("SELECT current_setting('app.session_id')"))
        assert fence.scalar_one() == str(ours)
    async with service.reading(SCOPE) as work:
        with pytest.raises(BadQuery, match="notes belongs to sessions"):
            work.repository(notes)
    async with service.reading(Scope("default", every_session=True)) as work:
        assert await work.repository(notes).count() == 2


@pytest.mark.parametrize("tenant", ["", "a b", "x'; DROP TABLE tasks; --"])
def test_a_scope_has_a_tenant_that_messages_can_have(tenant):
    with pytest.raises(BadQuery, match="is none"):
        Scope(tenant)
