"""What is special about runs, steps, approvals and costs once they are stored."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import permutations

import pytest
from support.events import decoded
from support.tables import connected, rows

from contracts import metric
from contracts import workflow_facts as facts
from contracts import workflow_runs as runs
from contracts import workflow_steps as steps
from contracts.identifiers import uuid7
from worker.families import plan
from worker.store.database import Database
from worker.store.persist import Persister
from worker.store.writer import Writer

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
REFERENCE = {"uri": "s3://archive/one", "sha256": "0" * 64, "size": 5_000_000_000}


@pytest.fixture
async def store(database_url):
    """Commits each event in a transaction of its own; every one has to be stored."""
    database = Database(database_url, name="test")
    persister = Persister(database, Writer(plan()), "workflow", "agent.replies.*")

    async def commit(*events):
        for event in events:
            outcomes = (await persister.persist(decoded(event))).outcomes
            assert [one.outcome for one in outcomes] == ["persisted"]

    yield commit
    await database.close()


def told(contents):
    """Events a minute apart."""
    return [
        content.event(source="/agents/tester", time=NOON + timedelta(minutes=minute))
        for minute, content in enumerate(contents)
    ]


async def test_a_run_goes_back_and_forth_until_it_ends(store, database_url):
    """Of planning, executing, paused and waiting the latest counts, in whatever order they came; an end is final."""
    session, ended = uuid7(), uuid7()
    told_of = (runs.RunStarted, runs.RunPaused, runs.RunResumed)
    for order in permutations(range(3)):
        run = uuid7()
        created = runs.RunCreated(run_id=run, session_id=session, mode="one_shot")
        events = told([created, *(contract(run_id=run) for contract in told_of)])
        await store(events[0], *(events[1 + at] for at in order))
        [row] = await rows(database_url, "SELECT status FROM workflow_runs WHERE id = $1", run)
        assert row["status"] == "executing"
    await store(
        *told([runs.RunCompleted(run_id=ended), runs.RunPaused(run_id=ended)]),
        *told([runs.RunFailed(run_id=ended, error_message="late")]),
    )
    [row] = await rows(database_url, "SELECT status FROM workflow_runs WHERE id = $1", ended)
    assert row["status"] == "completed"


async def test_the_last_decision_of_a_person_counts(store, database_url):
    """A decision that is changed is the later one, whatever came first; a request that comes late changes nothing of it."""
    approval, run, session = uuid7(), uuid7(), uuid7()
    requested, approved, rejected = told(
        [
            steps.ApprovalRequested(approval_id=approval, run_id=run, session_id=session),
            steps.ApprovalResolved(approval_id=approval, status="modified", user_feedback="mark"),
            steps.ApprovalResolved(approval_id=approval, status="approved", resolution="continue"),
        ]
    )
    await store(rejected, approved, requested)
    [row] = await rows(
        database_url,
        "SELECT status, user_feedback, resolution, requested_at, resolved_at, placeholder FROM approval_requests",
    )
    assert tuple(row.values()) == (
        *("approved", "mark", "continue", NOON),
        *(NOON + timedelta(minutes=2), False),
    )


async def test_a_completed_step_is_done_whole(store, database_url):
    """Completion means 100 per cent where the publisher does not say, and progress after it that was told before is none."""
    step = uuid7()
    progressed, completed = told(
        [
            steps.StepProgressed(step_id=step, progress_percentage=40),
            steps.StepCompleted(step_id=step, outputs={"fitted": 3}),
        ]
    )
    await store(completed, progressed)
    [row] = await rows(
        database_url, "SELECT status, progress_percentage, completed_at FROM workflow_steps"
    )
    assert tuple(row.values()) == ("completed", 100, NOON + timedelta(minutes=1))


async def test_a_workspace_may_be_archived_and_restored_but_not_undeleted(store, database_url):
    """Archived and active follow each other; deleted stays, and the last sign of life is kept."""
    session = uuid7()
    contents = [
        runs.WorkspaceCreated(session_id=session, name="one", user_id="ada"),
        runs.WorkspaceArchived(session_id=session),
        runs.WorkspaceRestored(session_id=session),
        runs.WorkspaceUpdated(session_id=session, resource_limits={"max_runs": 5}),
    ]
    await store(*reversed(told(contents)))
    columns = "status, name, user_id, last_active_at, version"
    [row] = await rows(database_url, f"SELECT {columns} FROM sessions")
    assert tuple(row.values()) == ("active", "one", "ada", NOON + timedelta(minutes=3), 4)
    await store(*told([runs.WorkspaceDeleted(session_id=session)]))
    assert (await rows(database_url, f"SELECT {columns} FROM sessions"))[0]["status"] == "deleted"


async def test_figures_are_stored_to_the_last_digit(store, database_url):
    """Costs and measurements keep every digit of the wire, and tokens are summed where the sum is not given."""
    run, session = uuid7(), uuid7()
    scope = {"run_id": run, "session_id": session}
    cost = {"model": "large-2", "prompt_tokens": 2**31 - 1, "completion_tokens": 2**31 - 1}
    numbers = [2**53 + 1, 0.1, -1.5e-12, 1e300, 0]
    await store(
        *told([facts.CostRecorded(**scope, **cost, cost_usd=9999.999999)]),
        *told([runs.RunMeasured(**scope, metric_name="m", metric_value=each) for each in numbers]),
        *told(
            [metric.MetricRecorded(name="queue.depth", value=0.1, tags={"queue": "worker.metric"})]
        ),
    )
    [row] = await rows(database_url, "SELECT total_tokens, cost_usd FROM cost_records")
    assert tuple(row.values()) == (2**32 - 2, Decimal("9999.999999"))
    found = await rows(database_url, "SELECT metric_value FROM workflow_metrics ORDER BY timestamp")
    assert [row["metric_value"] for row in found] == [Decimal(str(each)) for each in numbers]
    tagged = 'SELECT value FROM metrics WHERE tags @> \'{"queue": "worker.metric"}\''
    assert await rows(database_url, tagged) == [{"value": 0.1}]


async def test_a_claim_check_is_kept_as_it_came(store, database_url):
    """What is too large for a message is a reference in its row: nothing is fetched, and no snapshot is made up."""
    await store(
        *told(
            [
                facts.CheckpointSaved(
                    run_id=uuid7(),
                    session_id=uuid7(),
                    checkpoint_type="timed",
                    context_snapshot_ref=REFERENCE,
                )
            ]
        )
    )
    [row] = await rows(
        database_url,
        "SELECT context_snapshot, context_snapshot_ref ->> 'uri' AS uri,"
        " (context_snapshot_ref ->> 'size')::bigint AS size FROM checkpoints",
    )
    assert tuple(row.values()) == (None, REFERENCE["uri"], REFERENCE["size"])


async def test_facts_of_a_run_that_is_yet_to_come_make_placeholders(store, database_url):
    """Run and step are made by what names them, the session by the run alone."""
    run, step, session = uuid7(), uuid7(), uuid7()
    await store(
        *told(
            [
                facts.FileRecorded(
                    run_id=run,
                    session_id=session,
                    step_id=step,
                    file_path="a.py",
                    file_type="code",
                )
            ]
        )
    )
    async with connected(database_url) as connection:
        named = await connection.fetch("SELECT table_name, entity_id FROM orphans ORDER BY 1")
    assert [tuple(row) for row in named] == [
        ("workflow_runs", str(run)),
        ("workflow_steps", str(step)),
    ]
