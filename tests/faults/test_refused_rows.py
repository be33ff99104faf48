"""What PostgreSQL refuses: exactly the culprit is a dead letter, nothing of it stays behind, nothing good is lost or doubled."""

from itertools import combinations

from support.broker import client
from support.events import created, logged
from support.ledger import Ledger
from support.letters import replay
from support.locks import holding, waiting
from support.tables import connected, rows
from support.waiting import until
from support.workers import drain, running_worker

from contracts.identifiers import uuid7
from contracts.trajectory import PolicyCheckpointSaved
from worker import telemetry

SOURCE = "/agents/tester"


async def execute(settings, *scripts: str) -> None:
    async with connected(settings.database) as session:
        for script in scripts:
            await session.execute(script)


async def test_whichever_messages_of_a_batch_are_refused_these_and_no_others_are_blamed(settings):
    """One culprit at every position of eight, every pair of them, and all eight; the rest of each batch lands once."""
    await execute(
        settings,
        "ALTER TABLE execution_logs ADD CONSTRAINT ck_no_poison CHECK (action <> 'poison')",
    )
    ledger = Ledger()
    places = [*combinations(range(8), 1), *combinations(range(8), 2), tuple(range(8))]
    task = uuid7()
    async with client(settings.broker) as agent:
        await ledger.publish(agent, [created(task)])
        await drain(settings)
        async with running_worker(settings):
            for culprits in places:
                events = [
                    logged(task, action="poison" if at in culprits else "fine") for at in range(8)
                ]
                for at, event in enumerate(events):
                    await agent.publish(event)
                    if at in culprits:
                        ledger.expect_letter(event.to_json(), "unstorable")
                    else:
                        ledger.published.append(event)
            await ledger.hear(agent)
    await ledger.balance(settings.database)


async def test_another_unique_key_is_a_refusal_and_never_a_duplicate(settings):
    """A second checkpoint of an iteration under another id: a letter that names the constraint, from two workers at once."""
    await execute(
        settings,
        "ALTER TABLE policy_checkpoints ADD CONSTRAINT uq_iteration UNIQUE (job_id, iteration, tenant_id)",
    )
    ledger = Ledger()
    job = uuid7()
    small = settings.model_copy(update={"batch_messages": 3})
    async with client(settings.broker) as agent, running_worker(small), running_worker(small):
        pairs = [
            [
                PolicyCheckpointSaved(
                    job_id=job,
                    agent_id="a",
                    iteration=number,
                    checkpoint_id=uuid7(),
                    policy_data={"weights": side},
                ).event(source=SOURCE)
                for side in (1, 2)
            ]
            for number in range(20)
        ]
        await agent.publish(*(event for pair in pairs for event in pair))
        heard = await agent.confirmed(40)
    refused = {item["id"] for item in heard["rejected"]}
    assert len(refused) == len(heard["persisted"]) == 20
    for pair in pairs:
        (bad,) = [event for event in pair if str(event.id) in refused]
        ledger.expect_letter(bad.to_json(), "unstorable")
        ledger.published += [event for event in pair if event is not bad]
    letters = await rows(settings.database, "SELECT errors::text AS errors FROM dead_letters")
    assert all("uq_iteration" in letter["errors"] for letter in letters)
    await ledger.balance(settings.database)


async def test_a_refused_change_leaves_no_mark_of_having_been_seen(settings):
    """The idempotency record goes with the data: mended, its replay is stored, and neighbours were folded once."""
    await execute(
        settings, "ALTER TABLE tasks ADD CONSTRAINT uq_text UNIQUE (request_text, tenant_id)"
    )
    ledger = Ledger()
    twins = [created(request_text="the same") for _ in range(2)]
    others = [created(request_text=f"task {number}") for number in range(30)]
    async with client(settings.broker) as agent:
        await agent.publish_batch([*others[:15], *twins, *others[15:]], "task.created")
        await drain(settings)
        heard = await agent.confirmed(32)
        (refused,) = heard["rejected"]
        (bad,) = [event for event in twins if str(event.id) == refused["id"]]
        ledger.published += [*others, *(event for event in twins if event is not bad)]
        [letter] = await rows(settings.database, "SELECT body FROM dead_letters")
        expected = ledger.expect_letter(letter["body"], "unstorable")
        await ledger.balance(settings.database)
        await execute(settings, "ALTER TABLE tasks DROP CONSTRAINT uq_text")
        await replay(settings)
        await drain(settings)
        assert [item["id"] for item in (await agent.confirmed(1))["persisted"]] == [refused["id"]]
    expected.resolution = "replayed"
    ledger.published.append(bad)
    await ledger.balance(settings.database)


async def test_a_parent_that_is_deleted_meanwhile_costs_no_child(settings):
    """A foreign key that fails after the parent was seen is tried again with a placeholder, not skipped and not refused."""
    ledger = Ledger()
    task = uuid7()
    async with client(settings.broker) as agent, running_worker(settings):
        gone = created(task)
        await agent.publish(gone)
        await agent.confirmed(1)
        async with holding(
            settings.database, f"DELETE FROM tasks WHERE task_id = '{task}'"
        ) as session:
            await ledger.publish(agent, [logged(task) for _ in range(20)])
            await waiting(settings.database)
            await session.execute("COMMIT; BEGIN")
        await ledger.hear(agent)
    await execute(settings, f"DELETE FROM lifecycle_events WHERE event_id = '{gone.id}'")
    await ledger.balance(settings.database)


async def test_a_row_whose_parent_is_refused_is_blamed_alone(settings):
    """Foreign keys are looked at by the commit; a batch in halves looks at them earlier, where one row can be told."""
    ledger = Ledger()
    task = uuid7()
    await execute(
        settings,
        "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER skip BEFORE INSERT ON tasks FOR EACH ROW"
        f" WHEN (NEW.task_id = '{task}') EXECUTE FUNCTION skip()",
    )
    async with client(settings.broker) as agent:
        bad, good = logged(task), [logged() for _ in range(20)]
        for event in (*good[:10], bad, *good[10:]):
            await agent.publish(event)
        await drain(settings)
        assert [item["id"] for item in (await agent.confirmed(21))["rejected"]] == [str(bad.id)]
    ledger.published += good
    [letter] = await rows(settings.database, "SELECT body, errors::text FROM dead_letters")
    assert "fk_execution_logs_task_id" in letter["errors"]
    ledger.expect_letter(letter["body"], "unstorable")
    await ledger.balance(settings.database)


async def test_a_database_that_refuses_to_write_for_long_drops_nothing(settings):
    """However many attempts fail: read-only for dozens of them, then all rows are there, and no letter."""
    ledger = Ledger()
    quick = settings.model_copy(update={"retry_longest": 0.05})
    name = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = {}', current_database()); END $$"
    kill = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'test-worker'"
    )
    failed = telemetry.transactions.labels("execution-log", "unavailable")._value
    async with client(settings.broker) as agent, running_worker(quick):
        await execute(settings, name.format("on"))
        await rows(settings.database, kill)
        before = failed.get()
        await ledger.publish(agent, [logged() for _ in range(50)])
        await until(lambda: failed.get() >= before + 40, seconds=60)
        await execute(settings, "SET default_transaction_read_only = off", name.format("off"))
        await rows(settings.database, kill)
        await ledger.hear(agent)
    await ledger.balance(settings.database)
