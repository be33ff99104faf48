"""kill -9 between any two steps of a batch: nothing is lost, nothing doubled, everything confirmed."""

import signal
from typing import get_args

import pytest
from support.broker import client
from support.events import created, logged
from support.ledger import Ledger
from support.letters import replay, undeployed
from support.workers import drain, worker_process

from contracts.identifiers import uuid7
from contracts.task_lifecycle import TaskCompleted, TaskDependsOn, TaskStarted
from worker.crash_points import CrashPoint

POINTS = [point for point in get_args(CrashPoint) if point != "none"]


@pytest.mark.parametrize("point", POINTS)
async def test_a_worker_that_dies_at_any_point_leaves_an_account_that_balances(point, settings):
    """Facts, entities, batches, dead letters and replays: the next worker finishes what the dead one began."""
    ledger = Ledger()
    quick = settings.model_copy(update={"outbox_sweep_after": 0.5})
    tasks = [uuid7() for _ in range(10)]
    replayed = [logged(task) for task in tasks]
    async with client(settings.broker) as agent:
        await _make_letters(quick, agent, ledger, replayed)
        async with worker_process(quick, WORKER_CRASH_POINT=point) as doomed:
            await ledger.publish(agent, [logged(tasks[at % 10]) for at in range(100)])
            await ledger.publish(agent, _changes(tasks))
            await ledger.publish_batch(agent, [logged() for _ in range(20)], "execution.logged")
            for number in range(5):
                await ledger.publish_bad(
                    agent, b'{"n": %d}' % number, "invalid", "execution.logged"
                )
            assert await doomed.ended() == -signal.SIGKILL
        await drain(quick)
        await ledger.hear(agent)
    await ledger.balance(settings.database)


async def _make_letters(settings, agent, ledger: Ledger, events: list) -> None:
    """Messages that became dead letters and are replayed: they wait in their queue again."""
    async with undeployed(settings, "execution-log"):
        await agent.publish(*events)
        await drain(settings)
    await agent.confirmed(len(events))
    assert len((await replay(settings)).published) == len(events)
    for event in events:
        ledger.expect_letter(event.to_json(), "unroutable").resolution = "replayed"
    ledger.published += events


def _changes(tasks: list) -> list:
    contents = [
        content
        for task in tasks
        for content in (
            TaskCompleted(task_id=task, output={"done": True}),
            TaskStarted(task_id=task, agent_id="infra"),
            TaskDependsOn(task_id=task, depends_on_task_id=uuid7()),
        )
    ]
    events = [content.event(source="/agents/tester") for content in contents]
    return [*events, *(created(task) for task in tasks)]
