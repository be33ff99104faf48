"""The same message again, however much later and wherever its row lies: idempotency has no window."""

import json
from datetime import UTC, datetime
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import create_async_engine
from support.broker import client
from support.events import created, logged
from support.ledger import Ledger
from support.tables import contents, count, rows
from support.workers import drain

from contracts import Event
from contracts.identifiers import uuid7
from worker.families.execution_log import execution_logs
from worker.store.lifecycle import lifecycle_events
from worker.store.partitions import Month, ensure_partitions

SOURCE = "/agents/tester"


def key_in(month: Month) -> UUID:
    """A key as it was made in a month, past or to come."""
    moment = datetime(month.year, month.number, 14, tzinfo=UTC)
    return uuid7(int(moment.timestamp() * 1000))


def of_all_months() -> list[Event]:
    """Facts and changes with keys of three months ago, of each month since, of two years ahead, and of no month."""
    now = Month.of(datetime.now(UTC))
    keys = [key_in(now.plus(later)) for later in (-3, -2, -1, 0, 1, 12, 13, 14, 24)]
    keys += [uuid4(), UUID(int=0), UUID(int=2**128 - 1)]
    task = uuid7()
    logs = [logged(task, log_id=key) for key in keys]
    changes = [created().model_copy(update={"id": key}) for key in keys]
    return [*logs, *changes]


async def test_a_repetition_weeks_later_is_a_duplicate_in_whatever_partition_its_row_lies(settings):
    """Past and future months, the default partition, and rows that moved into a month of their own meanwhile."""
    ledger = Ledger()
    events = of_all_months()
    async with client(settings.broker) as agent:
        await ledger.publish(agent, events)
        await drain(settings)
        await ledger.hear(agent)
        before = await contents(settings.database)
        engine = create_async_engine(settings.database)
        async with engine.connect() as connection:
            for table in (execution_logs, lifecycle_events):
                added = await ensure_partitions(connection, table, months_ahead=14)
                assert len(added) == 2, "no row moved"
        await engine.dispose()
        await agent.publish(*events)
        await drain(settings)
        again = await agent.confirmed(len(events))
    assert {outcome: len(items) for outcome, items in again.items()} == {"duplicate": len(events)}
    assert await contents(settings.database) == before
    await ledger.balance(settings.database)


async def test_ids_that_collide_are_a_conflict_and_never_one_message(settings):
    """Two processes that made the same key: the first to commit stays, the other is a letter, nothing is swallowed."""
    ledger = Ledger()
    fact, change = logged(action="one"), created(request_text="one")
    async with client(settings.broker) as agent:
        await ledger.publish(agent, [fact, change])
        await drain(settings)
        await ledger.hear(agent)
        for event, member in ((fact, "action"), (change, "request_text")):
            other = json.loads(event.to_json()) | {"source": "/agents/another"}
            other["data"][member] = "two"
            await ledger.publish_bad(agent, json.dumps(other).encode(), "conflict", event.type)
        # The same id and content from another source, at another time, is the same message.
        same = json.loads(fact.to_json())
        same |= {"source": "/agents/another", "time": "2020-01-01T00:00:00Z"}
        await agent.publish(json.dumps(same).encode())
        # An id that another type has used is taken as well.
        other_type = created(request_text="three").model_copy(update={"id": change.id})
        await ledger.publish_bad(agent, other_type.to_json(), "conflict", "task.created")
        await drain(settings)
    stored = await rows(settings.database, "SELECT action FROM execution_logs")
    assert stored == [{"action": "one"}]
    ledger.said.clear()  # what was said of one id here is said of two messages
    await ledger.balance(settings.database)


async def test_the_same_key_in_two_tenants_is_two_messages(settings):
    """Each tenant has its own row, and a second copy is a duplicate in its own tenant only."""
    ledger = Ledger()
    fact, change = logged(), created()
    async with client(settings.broker) as agent:
        for tenant in ("default", "acme"):
            await ledger.publish(
                agent, [e.model_copy(update={"tenantid": tenant}) for e in (fact, change)]
            )
        await drain(settings)
        assert len((await agent.confirmed(4))["persisted"]) == 4
        await agent.publish(fact, change)
        await drain(settings)
        assert len((await agent.confirmed(2))["duplicate"]) == 2
    assert await count(settings.database, "execution_logs") == 2
    await ledger.balance(settings.database)


async def test_a_tenant_that_names_another_tenants_task_reaches_nothing_of_it(settings):
    """A log, a child and a change of a task of the same id make a row in their own tenant; the other's is as it was."""
    from contracts.task_lifecycle import TaskCancelled, TaskDependsOn

    ledger = Ledger()
    task = uuid7()
    theirs = "SELECT * FROM tasks WHERE tenant_id = 'victim'"
    async with client(settings.broker) as agent:
        await ledger.publish(agent, [created(task, tenant="victim", request_text="theirs")])
        await drain(settings)
        before = await rows(settings.database, theirs)
        crossing = [
            logged(task, tenant="intruder"),
            created(tenant="intruder", parent_task_id=task),
            TaskCancelled(task_id=task).event(source=SOURCE, tenant="intruder"),
            TaskDependsOn(task_id=uuid7(), depends_on_task_id=task).event(
                source=SOURCE, tenant="intruder"
            ),
        ]
        await ledger.publish(agent, crossing)
        await drain(settings)
        await ledger.hear(agent)
    assert await rows(settings.database, theirs) == before
    found = await rows(
        settings.database,
        "SELECT status, placeholder FROM tasks WHERE tenant_id = 'intruder' AND task_id = $1",
        task,
    )
    assert found == [{"status": "cancelled", "placeholder": True}]
    await ledger.balance(settings.database)
