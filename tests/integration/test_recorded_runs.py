"""Real runs of an agent, that nobody here made up, through a real worker."""

import json
import os
import random
from itertools import groupby
from pathlib import Path

import pytest
from support.broker import client
from support.tables import contents, rows

from contracts.registry import contract_types
from worker.demo.recorded import events, read

STORED = """
SELECT event_id::text, 'execution_logs' AS table FROM execution_logs
UNION ALL SELECT event_id::text, 'trajectories' FROM trajectories
UNION ALL SELECT event_id::text, 'lifecycle_events' FROM lifecycle_events
"""


@pytest.fixture(scope="module")
def recorded():
    """Every event of the recorded runs, in no order."""
    place = os.environ.get("WORKER_RECORDED_RUNS")
    if not place or not Path(place).is_file():
        pytest.skip("recorded runs are left out: WORKER_RECORDED_RUNS names no file")
    found = list(events(read(Path(place))))
    random.Random(7).shuffle(found)
    return found


def family(event):
    return contract_types()[event.type][0].name


async def publish(agent, found):
    """Publish everything in batches of one family."""
    for _, members in groupby(sorted(found, key=family), key=family):
        batch = list(members)
        for first in range(0, len(batch), 400):
            await agent.publish_batch(batch[first : first + 400], batch[0].type)


async def test_recorded_runs_are_stored_once_and_recognised_the_second_time(
    recorded, worker, settings
):
    """Every event in its table exactly once and confirmed; published again, all are duplicates and no table changes."""
    ids = sorted(str(event.id) for event in recorded)
    async with client(settings.broker) as agent:
        await publish(agent, recorded)
        first = await agent.confirmed(len(recorded))
        assert first.keys() == {"persisted"}
        assert sorted(item["id"] for item in first["persisted"]) == ids

        stored = await rows(settings.database, STORED)
        assert sorted(row["event_id"] for row in stored) == ids
        expected = {"execution.logged": "execution_logs", "trajectory.recorded": "trajectories"}
        tables = {row["event_id"]: row["table"] for row in stored}
        assert all(
            tables[str(event.id)] == expected.get(event.type, "lifecycle_events")
            for event in recorded
        )
        before = await contents(settings.database)

        await publish(agent, recorded)
        second = await agent.confirmed(len(recorded))
        assert second.keys() == {"duplicate"}
        assert sorted(item["id"] for item in second["duplicate"]) == ids
        assert await contents(settings.database) == before

    await _texts_are_unchanged(recorded, settings.database)
    await _entities_are_whole(recorded, settings.database)


async def _texts_are_unchanged(recorded, url):
    """What an agent said, and what its tools returned, can be read as it was."""
    found = await rows(url, "SELECT event_id::text, output_full::text AS text FROM execution_logs")
    outputs = {row["event_id"]: json.loads(row["text"]) for row in found}
    for event in recorded:
        if event.type == "execution.logged":
            assert outputs[str(event.id)] == event.data["output_full"]


async def _entities_are_whole(recorded, url):
    """Each run is a task that ended by its reward; the job counts its groups."""
    ended = {
        event.data["task_id"]: event.type.removeprefix("task.")
        for event in recorded
        if event.type in ("task.completed", "task.failed")
    }
    found = await rows(url, "SELECT task_id::text, status, placeholder FROM tasks")
    assert {row["task_id"]: row["status"] for row in found} == ended
    assert not any(row["placeholder"] for row in found)
    [job] = await rows(url, "SELECT status, current_iteration, total_iterations FROM training_jobs")
    groups = sum(event.type == "training.progressed" for event in recorded)
    assert job == {"status": "completed", "current_iteration": groups, "total_iterations": groups}
