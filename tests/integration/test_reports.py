"""The ten reports: figures that can be computed by hand, from messages; formats, mistakes, and plans."""

import asyncio
import csv
import io
import re

import pytest
from support.commands import command
from support.history import change, persist, step, task
from support.plans import indexes_of
from support.tables import connected

from contracts.identifiers import uuid7
from contracts.task_lifecycle import TaskCompleted, TaskFailed, TaskRetrying, TaskStarted
from worker.reports.post_mortem import REPORTS

DEPLOY, SEARCH, BROKEN, RUNNING, OLD, OTHERS = (uuid7() for _ in range(6))
NAMES = {
    str(DEPLOY): "deploy",
    str(SEARCH): "search",
    str(BROKEN): "broken",
    str(RUNNING): "running",
    str(OLD): "old",
    str(OTHERS): "others",
}


def history():
    """Six tasks: two completed, one failed, one that runs, one long ago, one of another tenant; times in days ago."""
    gpt = {"model": "gpt", "tokens": 1000, "cost": 0.5}
    return [
        task(DEPLOY, ago={"days": 2}, type="deploy", agent_id="infra-1", estimated_resources={"cpu": 4}),
        change(TaskStarted(task_id=DEPLOY), days=2, hours=-1),
        step(DEPLOY, ago={"days": 1.9}, step_number=0, duration_ms=100, agent_type="infra"),
        step(DEPLOY, ago={"days": 1.8}, step_number=1, duration_ms=300, agent_type="infra"),
        change(
            TaskCompleted(task_id=DEPLOY, actual_resources={"cpu": 5}, external_ai_used=gpt),
            days=2, hours=-3,
        ),
        task(SEARCH, ago={"days": 3}, type="research"),
        change(TaskStarted(task_id=SEARCH), days=3, hours=-1),
        step(SEARCH, ago={"days": 2.9}, step_number=0, duration_ms=50, agent_type="research"),
        change(
            TaskCompleted(
                task_id=SEARCH,
                external_ai_used={"model": "gpt", "tokens": 500, "cost": "free"},
            ),
            days=3, hours=-2,
        ),
        task(BROKEN, ago={"days": 4}, type="deploy"),
        change(TaskStarted(task_id=BROKEN), days=4, hours=-1),
        step(BROKEN, ago={"days": 3.9}, step_number=0, status="failed", action="plan", duration_ms=10),
        step(BROKEN, ago={"days": 3.8}, step_number=1, status="failed", action="apply", output_summary="=1+1"),
        change(
            TaskFailed(
                task_id=BROKEN, error_message="no \x1b[31mquota", actual_resources={"cpu": 1},
                external_ai_used={"model": "claude", "tokens": 10, "cost": 0.75},
            ),
            days=4, hours=-11,
        ),
        task(RUNNING, ago={"days": 1}),
        change(TaskStarted(task_id=RUNNING), days=1, hours=-2),
        task(OLD, ago={"days": 50}),
        change(TaskFailed(task_id=OLD, error_message="long ago"), days=49),
        task(OTHERS, ago={"days": 1}, tenant="acme"),
        step(OTHERS, ago={"days": 1}, tenant="acme", status="failed", agent_type="code"),
        change(TaskFailed(task_id=OTHERS, error_message="theirs"), tenant="acme", hours=20),
    ]  # fmt: skip


@pytest.fixture
async def report(database_url):
    """Ask for a report as JSON."""
    assert set(await persist(database_url, *history())) == {"persisted"}

    async def ask(*arguments):
        done = await asyncio.to_thread(
            command, "report", *arguments, "--format", "json", DATABASE_URL=database_url
        )
        assert (done.code, done.err) == (0, ""), done.err
        return [{**row, "task": NAMES.get(row.get("task_id"))} for row in done.json["rows"]]

    return ask


def picked(rows, *names):
    return [tuple(row[name] for name in names) for row in rows]


async def test_each_report_has_the_figures_that_were_computed_by_hand(report):
    """In one database, so that each report also has to leave out what the others are for."""
    ours = ("--tenant", "default")

    rows = await report("failed-tasks")
    assert picked(rows, "task", "failed_step", "failed_action", "error_message") == [
        ("others", 1, "act", "theirs"),
        ("broken", 1, "apply", "no \x1b[31mquota"),
    ]
    assert picked(await report("failed-tasks", "--days", "60", *ours), "task") == [
        ("broken",),
        ("old",),
    ]
    assert picked(await report("failed-tasks", "--limit", "1"), "task") == [("others",)]

    rows = await report("task-timeline", "--task", str(DEPLOY))
    assert picked(rows, "kind", "what", "step", "duration_ms") == [
        ("event", "task.created", None, None),
        ("event", "task.started", None, None),
        ("step", "infra: act", 0, 100),
        ("event", "task.completed", None, None),
        ("step", "infra: act", 1, 300),
    ]
    assert await report("task-timeline", "--task", str(OTHERS), *ours) == []

    rows = await report("task-resources")
    columns = ("task", "estimated_resources", "actual_resources", "steps", "step_ms", "duration_ms")
    hour = 3_600_000
    assert [row[:5] for row in picked(rows, *columns)] == [
        ("deploy", {"cpu": 4}, {"cpu": 5}, 2, 400),
        ("broken", None, {"cpu": 1}, 2, 10),
    ]
    assert [round(row["duration_ms"] / hour, 3) for row in rows] == [2, 10]

    rows = await report("external-ai-tasks")
    assert picked(rows, "task", "model", "tokens", "cost") == [
        ("deploy", "gpt", 1000, 0.5),
        ("search", "gpt", 500, None),
        ("broken", "claude", 10, 0.75),
    ]

    rows = await report("agent-types", *ours)
    columns = (
        "agent_type",
        "steps",
        "completed",
        "failed",
        "success_rate",
        "average_ms",
        "longest_ms",
    )
    assert picked(rows, *columns) == [
        ("infra", 4, 2, 2, 0.5, 136.7, 300),
        ("research", 1, 1, 0, 1, 50, 50),
    ]

    rows = await report("failed-steps")
    assert picked(rows, "task", "step_number", "action") == [
        ("others", 1, "act"),
        ("broken", 1, "apply"),
        ("broken", 0, "plan"),
    ]
    assert len(await report("failed-steps", "--days", "3")) == 1

    rows = await report("tasks-by-status", *ours)
    assert picked(rows, "status", "tasks") == [("completed", 2), ("failed", 2), ("executing", 1)]
    assert picked(await report("tasks-by-status", "--days", "30", *ours), "tasks") == [
        (2,),
        (1,),
        (1,),
    ]

    rows = await report("ai-cost")
    assert picked(rows, "model", "tasks", "tokens", "cost", "average_cost") == [
        ("claude", 1, 10, 0.75, 0.75),
        ("gpt", 2, 1500, 0.5, 0.5),
    ]

    rows = await report("longest-tasks")
    assert picked(rows, "task", "status") == [
        ("running", "executing"), ("broken", "failed"), ("deploy", "completed"), ("search", "completed"),
    ]  # fmt: skip
    assert [round(row["seconds"] / 3600, 1) for row in rows] == [22, 10, 2, 1]

    rows = await report("success-by-day", *ours)
    assert sorted(picked(rows, "completed", "failed", "success_rate")) in (
        [(0, 1, 0), (1, 0, 1), (1, 0, 1)],
        [(1, 0, 1), (1, 1, 0.5)],  # where 10 hours of the failed one reach the next day
    )
    assert [row["day"] for row in rows] == sorted((row["day"] for row in rows), reverse=True)


async def test_a_retry_is_counted_by_its_last_attempt(report, database_url):
    """A task that failed and was completed in its second attempt is a success."""
    await persist(
        database_url,
        change(TaskRetrying(task_id=BROKEN, attempt=2), days=1),
        change(TaskCompleted(task_id=BROKEN, attempt=2), hours=20),
    )
    assert picked(await report("failed-tasks"), "task") == [("others",)]
    rows = await report("success-by-day", "--tenant", "default")
    assert sum(row["failed"] for row in rows) == 0
    assert sum(row["completed"] for row in rows) == 3


async def test_a_table_and_csv_hold_nothing_that_steers_terminals_or_spreadsheets(
    report, database_url
):
    """Agents write what they like."""

    def ask(*arguments):
        return command("report", *arguments, DATABASE_URL=database_url)

    told = await asyncio.to_thread(ask, "failed-tasks")
    assert "\x1b" not in told.out
    assert r"no \x1b[31mquota" in told.out
    written = await asyncio.to_thread(ask, "failed-steps", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(written.out)))
    assert [row["output_summary"] for row in rows] == ["", "'=1+1", ""]
    assert [row["step_number"] for row in rows] == ["1", "1", "0"]
    limited = await asyncio.to_thread(ask, "failed-steps", "--limit", "1")
    assert "the first 1 rows; --limit shows more" in limited.err


def test_every_report_is_listed_with_what_it_takes():
    """Without a database."""
    told = command("report", "--list")
    assert told.code == 0
    assert len(REPORTS) == 10
    for name in REPORTS:
        assert re.search(rf"^{name} ", told.out, re.MULTILINE)
    listed = command("report", "--list", "--format", "json").json
    assert [one["name"] for one in listed] == list(REPORTS)
    assert command("report", "--list", "--format", "csv").out.startswith("name,title,takes\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "say which report; there are: failed-tasks, "),
        (["nonsense"], "'nonsense' is no report; there are: failed-tasks, "),
        (["task-timeline"], "the report task-timeline needs --task"),
        (["task-timeline", "--task", "x"], "--task 'x' is no UUID"),
        (["ai-cost", "--task", str(DEPLOY)], "the report ai-cost takes no task; it takes: days, limit, tenant"),
        (["ai-cost", "--days", "0"], "--days must be 1 to 36,500, not 0"),
        (["ai-cost", "--limit", "1000000"], "--limit must be 1 to 100,000"),
        (["ai-cost", "--format", "pdf"], "pdf"),
    ],
)  # fmt: skip
def test_a_mistake_exits_2_and_says_what_would_be_right(arguments, told):
    done = command("report", *arguments, DATABASE_URL="postgresql://127.0.0.1:1/x")
    assert done.code == 2
    assert told in done.err


def test_a_database_out_of_reach_exits_3():
    done = command(
        "report", "ai-cost", DATABASE_URL="postgresql://127.0.0.1:1/x", WORKER_START_TIMEOUT="0"
    )
    assert done.code == 3
    assert "127.0.0.1:1" in done.err


async def test_plans_rest_on_the_named_indexes(database_url):
    """Where scanning a whole table is made expensive, as it is once tables are large."""
    async with connected(database_url) as connection:
        await connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = on")
        for report in REPORTS.values():
            values = report.parameters({"task": DEPLOY} if "task" in report.defaults else {})
            used = await indexes_of(connection, report.sql, values)
            for index in report.indexes:  # ix_tasks_status_priority begins with the status too
                assert any(name.startswith(index) for name in used), f"{report.name}: {used}"
