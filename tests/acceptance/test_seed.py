"""`worker seed`: every table, every state, twice the same, and never by mistake into production."""

import asyncio

import pytest
from support.commands import command
from support.events import created
from support.history import persist
from support.tables import contents, count, rows

from worker.families.task_lifecycle import STATUSES
from worker.operations.seed_events import SEEDS
from worker.store.schema import Kind, tables_of_kind

MESSAGES = [*tables_of_kind(Kind.FACT), *tables_of_kind(Kind.ENTITY)]


async def seed(url, *arguments, code=0):
    done = await asyncio.to_thread(command, "seed", *arguments, DATABASE_URL=url)
    assert done.code == code, done.err or done.out
    return done


@pytest.mark.parametrize("name", ["dev", "test"])
async def test_every_table_has_rows_and_a_second_run_changes_nothing(database_url, name):
    """Tables of families that come later too: they are seeded from their examples."""
    first = (await seed(database_url, name, "--json")).json
    assert first["stored"] == first["events"] > 20
    assert {str(table.name) for table in MESSAGES} - set(first["tables"]) == {"lifecycle_events"}
    for table in MESSAGES:
        assert await count(database_url, table.name), table.name
    assert all("is stored with other content" in told for told in first["left_out"])
    before = await contents(database_url)
    again = await seed(database_url, name)
    assert f"0 events stored, {first['events']} were there already" in again.out
    assert await contents(database_url) == before
    assert await count(database_url, "dead_letters") == 0


async def test_development_has_eight_tasks_in_every_state_with_more_than_twenty_logs(database_url):
    """As somebody wants to see them who builds a screen; and the reports have something to tell."""
    await seed(database_url, "dev", "--tenant", "acme")
    found = await rows(database_url, "SELECT status, tenant_id FROM tasks WHERE NOT placeholder")
    assert sorted(row["status"] for row in found) == sorted(STATUSES)
    assert {row["tenant_id"] for row in found} == {"acme"}
    assert await count(database_url, "execution_logs") > 20
    for name in ("failed-tasks", "agent-types", "success-by-day", "ai-cost", "failed-steps"):
        told = await asyncio.to_thread(
            command, "report", name, "--format", "json", DATABASE_URL=database_url
        )
        assert told.json["rows"], name


async def test_production_gets_one_task_and_no_more(database_url):
    """And may get it beside what agents publish."""
    await persist(database_url, created())
    await seed(database_url, "prod")
    assert await count(database_url, "tasks") == 2
    assert await count(database_url, "execution_logs") == 1


async def test_what_looks_like_production_is_refused_until_somebody_insists(database_url):
    """Because agents have published there; nothing is stored."""
    await persist(database_url, created())
    done = await seed(database_url, "dev", code=2)
    assert "lifecycle_events holds what /agents/tester has published" in done.err
    assert "--force" in done.err
    assert await count(database_url, "tasks") == 1
    await seed(database_url, "dev", "--force")
    assert await count(database_url, "tasks WHERE NOT placeholder") == 9


@pytest.mark.parametrize("name", ["agents_prod", "production", "live-agents"])
async def test_a_name_of_production_is_refused(postgres, name):
    """By the name alone, though the database is empty."""
    from worker.store.migrations import upgrade

    url = postgres.create(name)
    try:
        await asyncio.to_thread(upgrade, url)
        done = await seed(url, "test", code=2)
        assert "looks like production" in done.err
    finally:
        postgres.drop(name)


def test_an_unknown_seed_is_named_with_those_that_there_are():
    done = command("seed", "demo", DATABASE_URL="postgresql://127.0.0.1:1/x")
    assert done.code == 2
    assert "'demo' is no seed; there are: dev, test, prod" in done.err


@pytest.mark.parametrize("name", SEEDS)
def test_a_seed_has_the_same_ids_and_content_in_every_run(name):
    """Only times differ: they are no part of what makes a duplicate."""
    once, again = (
        [(event.id, event.type, event.data) for event in (*seed.events, *seed.examples)]
        for seed in (SEEDS[name]("default") for _ in "12")
    )
    assert once == again
    assert len({event_id for event_id, _, _ in once}) == len(once)
