"""Repositories: what is found by which filter, pages without gaps, writes through the fold, versions, and who sees what."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from support.documents import ROOT, blocks_of
from support.events import created, delivery, logged
from support.plans import indexes_of_query
from support.tables import connected, count, rows
from support.volume import load

from contracts.identifiers import uuid7
from contracts.registry import contract_types
from contracts.task_lifecycle import TaskCompleted, TaskFailed, TaskStarted
from worker.decode import Decoder
from worker.errors import Unavailable
from worker.families import plan
from worker.repositories.errors import (
    AlreadyExists,
    BadQuery,
    NotFound,
    OutOfScope,
    Refused,
    Stale,
)
from worker.repositories.groups import repositories, repository_of
from worker.repositories.groups.tasks import (
    ExecutionLogRepository,
    TaskDependencyRepository,
    TaskRepository,
)
from worker.repositories.query import Filter
from worker.repositories.scope import Scope
from worker.repositories.service import DatabaseService
from worker.settings import Settings
from worker.store.persist import Persister
from worker.store.schema import Kind, tables_of_kind
from worker.store.writer import Writer

ACME = Scope("acme")
T0 = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
async def service(database_url):
    settings = Settings.load(database_url=database_url, amqp_url="amqp://not-used", name="test")
    async with DatabaseService(settings) as service:
        yield service


def task(number=0, **given):
    """A task of acme, created `number` minutes after noon."""
    given.setdefault("tenant", "acme")
    return created(**given).model_copy(update={"time": T0 + timedelta(minutes=number)})


def started(task_id, minute=30):
    event = TaskStarted(task_id=task_id).event(source="/a", tenant="acme")
    return event.model_copy(update={"time": T0 + timedelta(minutes=minute)})


def completed(task_id, minute=40, **data):
    event = TaskCompleted(task_id=task_id, **data).event(source="/a", tenant="acme")
    return event.model_copy(update={"time": T0 + timedelta(minutes=minute)})


async def fill(service, events, scope=ACME):
    """Create each of these."""
    async with service.transaction(scope) as work:
        for event in events:
            await work.table("tasks" if "request_text" in event.data else "execution_logs").create(
                event
            )


async def test_a_row_is_found_by_its_key_within_its_tenant(service):
    """The same key in another tenant is another row, and none where nobody made it."""
    key = uuid7()
    await fill(service, [task(task_id=key, request_text="ours")])
    await fill(service, [task(task_id=key, tenant="other", request_text="theirs")], Scope("other"))
    async with service.reading(ACME) as work:
        tasks = work.repository(TaskRepository)
        assert (await tasks.get(key))["request_text"] == "ours"
        assert (await tasks.get(str(key), columns=["status"])) == {"status": "pending"}
        assert await tasks.count() == 1
        assert await tasks.get(uuid7()) is None
        with pytest.raises(NotFound, match="there is no task"):
            await tasks.require(uuid7())
        with pytest.raises(
            BadQuery, match=r"the key of task_dependencies is \(task_id, depends_on"
        ):
            await work.repository(TaskDependencyRepository).get(key)


async def test_filters_choose_by_hand_countable_rows(service):
    """Five tasks, each filter with the tasks that it must find."""
    events = [
        task(0, request_text="a 50%", priority=1, agent_id="infra-1", metadata={"team": "x"}),
        task(1, request_text="b", priority=2, agent_id="infra-2", metadata={"team": "y"}),
        task(2, request_text="c", priority=3, agent_id="code-1", type="deploy"),
        task(3, request_text="d", priority=9, agent_id="infra%1"),
        task(4, request_text="e", priority=9),
    ]
    await fill(service, events)
    expected = [
        ({"priority": 9}, "de"),
        ({"priority": [1, 3]}, "ac"),
        ({"agent_id": None}, "e"),
        ([Filter("agent_id", "is null", value=False)], "abcd"),
        ([Filter("agent_id", "starts with", "infra-")], "ab"),
        ([Filter("agent_id", "starts with", "infra%")], "d"),
        ([Filter("priority", ">", 2), Filter("priority", "<=", "9")], "cde"),
        ([Filter("created_at", ">=", T0 + timedelta(minutes=3))], "de"),
        ([Filter("created_at", "<", "2026-11-20T13:01:00+01:00")], "a"),
        ([Filter("metadata", "contains", {"team": "y"})], "b"),
        ([Filter("priority", "!=", 9)], "abc"),
        ({"task_id": str(events[1].data["task_id"])}, "b"),
        ({"type": "deploy", "priority": 1}, ""),
    ]  # fmt: skip
    async with service.reading(ACME) as work:
        tasks = work.repository(TaskRepository)
        for where, names in expected:
            page = await tasks.find(where, sort=("created_at",))
            assert "".join(row["request_text"][0] for row in page.rows) == names, where
            assert await tasks.count(where) == len(names), where
        assert await tasks.count(upto=3) == 3


MISTAKES = [
    ({"where": {"colour": "red"}}, r"tasks has no field 'colour' here; there are: task_id, parent_task_id"),
    ({"where": {"tenant_id": "other"}}, "has no field 'tenant_id'"),
    ({"where": {"priority": "high"}}, "priority must be an integer, not 'high'"),
    ({"where": {"created_at": datetime(2026, 1, 1)}}, "created_at must be a time with an offset"),  # noqa: DTZ001
    ({"where": {"task_id": "x' OR '1'='1"}}, "task_id must be a UUID"),
    ({"where": {"agent_id": "a\0b"}}, "agent_id must be text"),
    ({"where": [Filter("priority", "like", 1)]}, "'like' is no operator; there are: ="),
    ({"where": [Filter("agent_id", "contains", 1)]}, "'contains' is for JSON"),
    ({"where": [Filter("priority", "in", "12")]}, "'in' takes a list"),
    ({"where": [Filter("priority", "in", range(2000))]}, "at most 1,000 values"),
    ({"where": {"metadata": {}}}, "metadata is JSONB: it cannot be compared"),
    ({"sort": ("-metadata",)}, "tasks has no field 'metadata' here"),
    ({"limit": 5000}, "limit must be 1 to 1,000, not 5,000"),
    ({"offset": 10_001}, "offset must be 0 to 10,000"),
    ({"offset": 1, "after": "x"}, "not both"),
    ({"after": "no cursor"}, "the cursor is none"),
    ({"columns": ("colour",)}, "has no field 'colour'"),
]  # fmt: skip


async def test_a_mistake_in_a_query_is_named_with_what_would_be_right(service):
    """Before anything is asked of the database."""
    async with service.reading(ACME) as work:
        for asked, told in MISTAKES:
            with pytest.raises(BadQuery, match=told):
                await work.repository(TaskRepository).find(**asked)


@pytest.mark.parametrize("sort", [(), ("priority",), ("-agent_id",), ("agent_id", "-priority")])
async def test_pages_hold_every_row_once_whatever_the_order(service, sort):
    """Ties and nulls included; the order is that of one large page, and a new row shifts nothing."""
    events = [task(n % 4, priority=n % 3 + 1, agent_id=[None, "a", "b"][n % 3]) for n in range(11)]
    await fill(service, events)
    async with service.transaction(ACME) as work:
        tasks = work.repository(TaskRepository)
        whole = [row["task_id"] for row in (await tasks.find(sort=sort)).rows]
        assert len(whole) == 11
        seen, after = [], None
        for _ in range(4):
            page = await tasks.find(sort=sort, limit=3, after=after, columns=["status"])
            seen += [row["task_id"] for row in page.rows]
            after = page.next
        assert (seen, after) == (whole, None)
        assert [row["task_id"] async for row in tasks.stream(sort=sort)] == whole
        skipped = await tasks.find(sort=sort, limit=4, offset=7)
        assert [row["task_id"] for row in skipped.rows] == whole[7:]
        assert skipped.next is None
        with pytest.raises(BadQuery, match="another sort"):
            await tasks.find(sort=("status",), after=(await tasks.find(sort=sort, limit=1)).next)


async def test_create_and_update_are_the_same_as_messages(service, database_url):
    """The same rows, histories, digests and confirmations as if the events had come through the broker."""
    key, epoch = uuid7(), uuid7()
    numbered = task(task_id=key).model_copy(update={"sequence": "1", "epoch": epoch})
    events = [numbered, started(key), completed(key, output={"n": 1})]
    async with service.transaction(ACME) as work:
        tasks = work.repository(TaskRepository)
        first = await tasks.create(events[0])
        assert (first.outcome, first.row["version"], first.row["status"]) == (
            "persisted",
            1,
            "pending",
        )
        done = await tasks.update(*events[1:], expected_version=1)
        assert (done.row["version"], done.row["status"], done.row["output"]) == (
            3,
            "completed",
            {"n": 1},
        )
        assert [row["type"] for row in await tasks.history(key)] == [e.type for e in events]
    [waiting] = await rows(database_url, "SELECT count(*) AS n FROM outbox")
    assert waiting["n"] == 2
    [seen] = await rows(database_url, "SELECT epoch, persisted::text FROM loss_ledger")
    assert seen == {"epoch": epoch, "persisted": "{[1,2)}"}

    family, _ = contract_types()["task.created"]
    persister = Persister(service.database, Writer(plan()), family.name, "agent.replies.*")
    again = [one for e in events for one in Decoder(family).decode(delivery(e))]
    outcomes = (await persister.persist(again)).outcomes
    assert {one.outcome for one in outcomes} == {"duplicate"}


async def test_a_stale_update_is_refused_and_names_both_versions(service):
    """Nothing of it is stored; and trying again what was stored is no stale update but a duplicate."""
    key = uuid7()
    await fill(service, [task(task_id=key)])
    begin = started(key)
    async with service.transaction(ACME) as work:
        await work.repository(TaskRepository).update(begin, expected_version=1)
    with pytest.raises(Stale, match=f"task {key} is in version 2, not in version 1") as refused:
        async with service.transaction(ACME) as work:
            await work.repository(TaskRepository).update(completed(key), expected_version=1)
    assert (refused.value.expected, refused.value.found) == (1, 2)
    async with service.transaction(ACME) as work:
        again = await work.repository(TaskRepository).update(begin, expected_version=1)
    assert (again.outcome, again.row["version"], again.row["status"]) == (
        "duplicate",
        2,
        "executing",
    )


async def test_of_many_at_once_one_update_wins(service):
    """Eight updates for one version, side by side: one is stored, seven are stale, and no version is lost."""
    key = uuid7()
    await fill(service, [task(task_id=key)])

    async def update(minute):
        async with service.transaction(ACME) as work:
            await work.repository(TaskRepository).update(started(key, minute), expected_version=1)

    ends = await asyncio.gather(*(update(n) for n in range(8)), return_exceptions=True)
    assert [type(end) for end in ends if end is not None] == [Stale] * 7
    async with service.reading(ACME) as work:
        assert (await work.repository(TaskRepository).require(key))["version"] == 2


async def test_what_cannot_be_stored_says_why_and_leaves_nothing(service, database_url):
    """No row, no dead letter, no confirmation: the caller is there to hear it."""
    key, log_id = uuid7(), uuid7()
    await fill(service, [task(task_id=key), logged(key, log_id=log_id, tenant="acme")])
    before = await count(database_url, "outbox")

    async def refused(error, told, table, method, *events, **given):
        with pytest.raises(error, match=told):
            async with service.transaction(ACME) as work:
                await getattr(work.table(table), method)(*events, **given)

    bad = task().model_copy(update={"data": {"task_id": str(uuid7())}})
    await refused(Refused, "invalid: data.request_text: Field required", "tasks", "create", bad)
    clash = logged(key, log_id=log_id, tenant="acme", action="another")
    await refused(
        Refused,
        "conflict: data: the key .* is stored with other content",
        "execution_logs",
        "create",
        clash,
    )
    await refused(
        OutOfScope,
        "is of the tenant 'other', not of 'acme'",
        "tasks",
        "create",
        task(tenant="other"),
    )
    await refused(
        AlreadyExists, f"task {key} was created before", "tasks", "create", task(task_id=key)
    )
    await refused(NotFound, "there is no task .* yet", "tasks", "update", started(uuid7()))
    await refused(
        BadQuery,
        "task.created is no event that changes a task; there are: task.approved",
        "tasks",
        "update",
        task(),
    )
    await refused(
        BadQuery, "task.started is no event that creates a task", "tasks", "create", started(key)
    )
    await refused(
        BadQuery, "no event that makes a row of execution_logs", "execution_logs", "create", task()
    )
    await refused(
        BadQuery,
        "the events must be of one task, not of 2",
        "tasks",
        "update",
        started(key),
        started(uuid7()),
    )
    assert await count(database_url, "dead_letters") == 0
    assert await count(database_url, "outbox") == before
    assert await count(database_url, "tasks") == 1
    assert await count(database_url, "execution_logs") == 1


async def test_a_task_that_was_only_named_can_be_created(service):
    """Its log came first, and a later event too."""
    key = uuid7()
    await fill(service, [logged(key, tenant="acme")])
    async with service.transaction(ACME) as work:
        tasks = work.repository(TaskRepository)
        assert (await tasks.require(key))["placeholder"]
        row = (await tasks.create(task(task_id=key))).row
        assert (row["placeholder"], row["version"]) == (False, 1)
        steps = await work.repository(ExecutionLogRepository).of_task(key)
        assert [step["step_number"] for step in steps.rows] == [1]


async def test_a_transaction_that_reads_cannot_write_and_one_that_fails_leaves_nothing(
    service, database_url
):
    """Whatever was done in it before."""
    with pytest.raises(Exception, match="read-only transaction"):
        async with service.reading(ACME) as work:
            await work.repository(TaskRepository).create(task())
    with pytest.raises(RuntimeError, match="own"):
        await _create_and_fail(service)
    assert await count(database_url, "tasks") == 0
    assert await count(database_url, "lifecycle_events") == 0


async def _create_and_fail(service):
    async with service.transaction(ACME) as work:
        await work.repository(TaskRepository).create(task())
        raise RuntimeError("the caller's own")


async def test_every_declared_table_has_a_repository(service):
    """With a class of its own or without; a new family needs nothing here."""
    tables = [*tables_of_kind(Kind.FACT), *tables_of_kind(Kind.ENTITY)]
    assert set(repositories()) == {table.name for table in tables}
    async with service.reading(Scope("acme", every_session=True)) as work:
        for name in repositories():
            repository = work.table(name)
            assert (await repository.find()).rows == []
            assert await repository.count() == 0
    with pytest.raises(BadQuery, match="there is no table 'dead_letters' to read"):
        repository_of("dead_letters")


async def test_failures_are_listed_with_the_latest_first(service):
    """What an operator asks first, through a repository."""
    keys = [uuid7() for _ in range(3)]
    await fill(service, [task(n, task_id=key) for n, key in enumerate(keys)])
    async with service.transaction(ACME) as work:
        tasks = work.repository(TaskRepository)
        for minute, key in enumerate(keys[:2], 50):
            event = TaskFailed(task_id=key, error_message="x").event(source="/a", tenant="acme")
            await tasks.update(event.model_copy(update={"time": T0 + timedelta(minutes=minute)}))
        page = await tasks.find({"status": "failed"}, sort=("-completed_at",))
        assert [row["task_id"] for row in page.rows] == [keys[1], keys[0]]


async def test_health_measures_connection_round_trip_and_pool(service, database_url):
    """And says what is wrong where the pool is used up or nobody answers."""
    health = await service.health()
    assert health.healthy
    assert 0 < health.latency_ms <= 5000
    assert 0 < health.connect_ms <= 5000
    assert (health.pool.in_use, health.pool.idle, health.pool.size, health.pool.most) == (
        0,
        1,
        10,
        14,
    )
    async with service.reading(ACME):
        assert service.pool.in_use == 1
    small = Settings.load(
        database_url=database_url,
        amqp_url="amqp://a",
        pool_size=1,
        pool_overflow=0,
        pool_timeout=0.1,
    )
    async with DatabaseService(small) as used_up, used_up.reading(ACME):
        health = await used_up.health()
        assert (health.healthy, health.latency_ms, health.pool.in_use) == (False, None, 1)
        assert "timeout" in health.problem.lower() or "timed out" in health.problem
    nowhere = Settings.load(database_url="postgresql://127.0.0.1:1/x", amqp_url="amqp://a")
    async with DatabaseService(nowhere) as away:
        assert not (await away.health()).healthy


async def test_the_example_of_the_document_runs(database_url, monkeypatch, capsys):
    """As it stands there, and it stores what it says."""
    [block] = blocks_of(ROOT / "docs" / "reading.md", "python")
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("AMQP_URL", "amqp://not-used")
    names = {}
    exec(compile(block.text, block.place, "exec"), names)
    await names["main"]()
    assert capsys.readouterr().out == "0 of 0\n"
    [row] = await rows(database_url, "SELECT tenant_id, status, version FROM tasks")
    assert row == {"tenant_id": "acme", "status": "cancelled", "version": 2}


async def test_messages_and_updates_on_one_task_lose_nothing(service):
    """Four who read and update with a version, beside four batches of messages: each event is in the version once."""
    key = uuid7()
    await fill(service, [task(task_id=key)])
    family, _ = contract_types()["task.started"]
    persister = Persister(service.database, Writer(plan()), family.name, "agent.replies.*")

    async def message(minute):
        [decoded] = Decoder(family).decode(delivery(started(key, minute)))
        return (await persister.persist([decoded])).outcomes

    async def update(minute):
        event = started(key, minute)
        while True:
            async with service.reading(ACME) as work:
                seen = (await work.repository(TaskRepository).require(key))["version"]
            try:
                async with service.transaction(ACME) as work:
                    await work.repository(TaskRepository).update(event, expected_version=seen)
                return
            except (Stale, Unavailable):
                continue

    await asyncio.gather(*(work(n) for n in range(5) for work in (message, update)))
    async with service.reading(ACME) as work:
        row = await work.repository(TaskRepository).require(key)
        assert row["version"] == 11
        assert len(await work.repository(TaskRepository).history(key)) == 11


async def test_lists_and_their_next_pages_rest_on_indexes(service, database_url):
    """As the planner chooses by itself among four thousand tasks and their logs."""
    async with connected(database_url) as connection:
        await load(connection, logs=20_000, tasks=4_000)
    some = Filter("metadata", "contains", {"team": "x"})
    cases = [
        (TaskRepository, (), (), "ix_tasks_created_at"),
        (TaskRepository, {"agent_id": "agent-7"}, ("created_at",), "ix_tasks_agent_id ix_tasks_created_at"),
        (TaskRepository, {"task_id": str(uuid7())}, (), "pk_tasks"),
        (TaskRepository, [some], (), "pk_tasks"),  # of the keys that a search through its index gives
        (ExecutionLogRepository, (), (), "ix_execution_logs_timestamp"),
        (ExecutionLogRepository, {"status": "failed"}, (), "ix_execution_logs_failed"),
        (ExecutionLogRepository, {"task_id": str(uuid7())}, ("step_number",), "ix_execution_logs_task_id_step_number"),
    ]  # fmt: skip
    last = {
        "created_at": T0,
        "timestamp": T0,
        "step_number": 3,
        "task_id": uuid7(),
        "log_id": uuid7(),
    }
    async with service.reading(ACME) as work:
        for kind, where, sort, either in cases:
            repository = work.repository(kind)
            for after in (None, repository._order(sort).cursor(last)):
                query = repository.query(where, sort=sort, limit=50, after=after)
                used = await indexes_of_query(work.connection, query)
                assert set(either.split()) & used, (kind.table.name, where, after, used)
