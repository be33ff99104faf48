"""What an operator may see and do, against a real broker and a real database."""

import asyncio
import socket
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from support import queues
from support.broker import client
from support.events import created, logged
from support.tables import connected
from support.workers import drain, running_worker

from contracts.identifiers import uuid7
from contracts.registry import families
from worker.broker.connection import connect
from worker.errors import Misconfigured, Unavailable
from worker.operations import broker_checks, doctor, installation, upkeep, worker_checks
from worker.operations.findings import Level
from worker.operations.overview import COUNTED_ROWS, overview
from worker.patience import patiently
from worker.store.partitions import Month


async def test_the_overview_counts_what_is_there(settings, amqp_url):
    """Waiting messages, stored rows, orphans, dead letters, the outbox."""
    async with client(amqp_url) as agent:
        await agent.publish(created(), logged(), b"not json")
        await agent.publish(b"{}", routing_key="nobody.knows")
        await drain(settings)
        await agent.publish(created())
    seen = await overview(settings)
    waiting = {one.family: (one.waiting, one.consumers) for one in seen.broker.queues}
    assert waiting == dict.fromkeys([*families(), "unrouted"], (0, 0)) | {"task-lifecycle": (1, 0)}
    contents = seen.database.contents
    rows = {one.table: one.rows for one in contents.tables}
    assert (rows["tasks"], rows["execution_logs"], rows["dead_letters"]) == (2, 1, 2)
    assert contents.orphans == {"tasks": 1}
    letters = {(one.family, one.reason): one.count for one in contents.dead_letters}
    assert letters == {("execution-log", "undecodable"): 1, ("unrouted", "unroutable"): 1}
    assert contents.outbox.rows == 0
    assert not any(one.estimated for one in contents.tables)


async def test_many_rows_are_estimated(settings, database_url):
    """Counting millions of rows to show a number would be no service."""
    async with connected(database_url) as connection:
        await connection.execute(
            "INSERT INTO tasks (task_id, request_text) SELECT gen_random_uuid(), 'x'"
            f" FROM generate_series(1, {COUNTED_ROWS + 500})"
        )
        await connection.execute("ANALYZE tasks")
    seen = await overview(settings)
    tasks = next(one for one in seen.database.contents.tables if one.table == "tasks")
    assert tasks.estimated
    assert tasks.rows == COUNTED_ROWS + 500
    assert tasks.bytes > 100_000


async def test_the_doctor_sees_what_piles_up(settings, database_url, amqp_url, monkeypatch):
    """Messages that nobody consumes, confirmations that nobody sends, letters that nobody reads, keys without a month."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("AMQP_URL", amqp_url)
    monkeypatch.setenv("WORKER_HTTP_PORT", "0")
    async with client(amqp_url) as agent:
        await agent.publish(b"not json", logged(log_id=uuid4()))
        await drain(settings)
        await agent.publish(created())
    async with connected(database_url) as connection:
        await connection.execute(
            "INSERT INTO outbox (id, created_at, family, payload)"
            " VALUES ($1, now() - interval '1 hour', 'trajectory', '{}')",
            uuid7(),
        )
    findings = {one.check: one for one in await doctor.examine() if one.level is not Level.OK}
    assert findings["queues"].level is Level.MEND
    assert "worker.task-lifecycle" in findings["queues"].what
    assert findings["outbox"].level is Level.MEND
    assert findings["dead letters"].level is Level.NOTE
    assert findings["partitions"].level is Level.NOTE
    assert "execution_logs" in findings["partitions"].what


async def test_the_doctor_names_privileges_that_are_missing(settings, postgres, database_url):
    """A role that may read only is told what to grant."""
    from sqlalchemy.ext.asyncio import create_async_engine

    from worker.operations.server_checks import examine_privileges

    role = f"reader_{uuid7().hex[-8:]}"
    engine = create_async_engine(database_url)
    async with engine.connect() as connection:
        await connection.exec_driver_sql(f"CREATE ROLE {role}")
        await connection.exec_driver_sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
        assert (await examine_privileges(connection)).level is Level.OK
        await connection.exec_driver_sql(f"SET LOCAL ROLE {role}")
        found = await examine_privileges(connection)
    await engine.dispose()
    assert found.level is Level.MEND
    assert "INSERT on tasks" in found.what
    assert "SELECT" not in found.what


async def test_a_memory_alarm_of_the_broker_is_seen(rabbitmq, amqp_url, monkeypatch):
    """A broker that takes no publishes says so by not answering; afterwards all is well again."""
    monkeypatch.setattr(broker_checks, "_ANSWER_SECONDS", 1.0)

    async def becomes(level: Level) -> None:
        seen = None
        async with asyncio.timeout(30):
            while seen is not level:
                connection = await connect(amqp_url, name="test")
                try:
                    answer = await broker_checks._probe(connection)
                finally:
                    await connection.close()
                seen = broker_checks.judge_publishing(answer).level

    await becomes(Level.OK)
    await asyncio.to_thread(rabbitmq.control, "set_vm_memory_high_watermark", "absolute", "1")
    try:
        await becomes(Level.MEND)
    finally:
        await asyncio.to_thread(rabbitmq.control, "set_vm_memory_high_watermark", "0.6")
    await becomes(Level.OK)


async def test_a_worker_on_this_machine_is_asked(settings):
    """It is ready and pauses nothing; where none answers, that is a note."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    here = settings.model_copy(update={"http_port": port})
    (nobody,) = await worker_checks.examine(here)
    assert nobody.level is Level.NOTE
    async with running_worker(here):
        findings = await worker_checks.examine(here)
    assert [one.level for one in findings] == [Level.OK]


async def test_migrate_tells_what_it_applied_and_refuses_a_newer_database(
    settings, empty_database_url
):
    """A database that a newer version has migrated is not touched."""
    fresh = settings.model_copy(
        update={"database_url": type(settings.database_url)(empty_database_url)}
    )
    applied = await installation.migrate(fresh)
    assert applied[0].version == "0001"
    assert applied[0].description
    assert await installation.migrate(fresh) == []
    async with connected(empty_database_url) as connection:
        await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Misconfigured, match="do not fit the database"):
        await installation.migrate(fresh)


async def test_two_who_maintain_at_once_do_each_month_once(settings):
    """Both succeed, and together they added what was missing."""
    both = await asyncio.gather(
        *(upkeep.maintain(settings, months_ahead=14, dry_run=False) for _ in range(2))
    )
    added = [name for done in both for table in done.tables for name in table.added]
    tables = [one.table for one in both[0].tables]
    last = [Month.of(datetime.now(UTC)).plus(ahead) for ahead in (13, 14)]
    assert sorted(added) == sorted(month.partition_of(t) for t in tables for month in last)
    assert {one.months for done in both for one in done.tables} == {15}


async def test_a_queue_that_differs_is_found_by_the_doctor(settings, amqp_url):
    """Its arguments are compared, not only its name."""
    await queues.replace_by_classic(amqp_url, "worker.trajectory")
    connection = await connect(amqp_url, name="test")
    try:
        found = await broker_checks.examine(connection)
    finally:
        await connection.close()
    (differing,) = [one for one in found if one.level is Level.MEND]
    assert differing.check == "topology"
    assert "queue worker.trajectory has x-" in differing.what


async def test_patience_ends():
    """Tried at least once, and not for longer than it was told."""
    tried = []

    async def away():
        tried.append(1)
        raise Unavailable("away")

    with pytest.raises(Unavailable):
        await patiently(0, away)
    assert len(tried) == 1
    said = []
    with pytest.raises(Unavailable):
        await patiently(0.35, away, said.append)
    assert said == ["away", "away"]
