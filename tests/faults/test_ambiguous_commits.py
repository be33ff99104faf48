"""Connections that are cut while COMMIT runs: nobody knows whether it happened, and the books balance all the same."""

import json
import random

from support.broker import client
from support.commits import cut_commits
from support.events import created, logged
from support.ledger import Ledger
from support.letters import EVERY, letters, replay, undeployed
from support.tables import rows
from support.waiting import until
from support.workers import drain, running_worker

from contracts.identifiers import uuid7
from contracts.task_lifecycle import TaskCompleted, TaskDependsOn, TaskStarted

CUT = 0.35


def lives(tasks: int) -> list:
    """Facts and changes of a few tasks: children before parents, and every message once."""
    events = []
    ids = [uuid7() for _ in range(tasks)]
    for task in ids:
        events += [logged(task) for _ in range(3)]
        events += [
            content.event(source="/agents/tester")
            for content in (
                TaskCompleted(task_id=task, output={"done": True}),
                TaskStarted(task_id=task, agent_id="infra"),
                TaskDependsOn(task_id=task, depends_on_task_id=uuid7()),
            )
        ]
        events.append(created(task))
    return events


def without_action() -> bytes:
    """A log entry that breaks its contract."""
    value = json.loads(logged().to_json())
    del value["data"]["action"]
    return json.dumps(value).encode()


async def test_what_may_be_committed_is_tried_again_and_stored_once(settings):
    """Facts, entities and dead letters: each stored once, confirmed as what it is, never as a duplicate."""
    seed = random.randrange(2**32)  # of pytest-randomly, which prints its own
    ledger = Ledger()
    async with client(settings.broker) as agent, cut_commits(settings, seed, CUT) as cuts:
        small = cuts.settings.model_copy(update={"batch_messages": 10, "outbox_sweep_after": 1.0})
        async with running_worker(small):
            for _ in range(4):
                await ledger.publish(agent, lives(tasks=5))
                await ledger.publish_batch(agent, [logged() for _ in range(5)], "execution.logged")
                await ledger.publish_bad(agent, without_action(), "invalid", "execution.logged")
            await ledger.hear(agent)
    await drain(settings.model_copy(update={"outbox_sweep_after": 0.5}))  # what a cut left
    assert min(cuts.counts.values()) >= 3, f"seed {seed} cut too little: {cuts.counts}"
    await ledger.balance(settings.database)


async def test_a_replay_whose_commit_is_cut_is_stored_once_and_its_letter_resolved(settings):
    """Whether or not the first commit happened, the second finds what there is."""
    seed = random.randrange(2**32)  # of pytest-randomly, which prints its own
    ledger = Ledger()
    events = [logged() for _ in range(40)]
    async with undeployed(settings, "execution-log"):
        async with client(settings.broker) as agent:
            await agent.publish(*events)
        await drain(settings)
    for event in events:
        ledger.expect_letter(event.to_json(), "unroutable").resolution = "replayed"
    await replay(settings)
    ledger.published += events
    async with client(settings.broker) as agent, cut_commits(settings, seed, 0.6) as cuts:
        small = cuts.settings.model_copy(update={"batch_messages": 4, "outbox_sweep_after": 1.0})
        async with running_worker(small):

            async def all_resolved() -> bool:
                return all(one.resolution for one in await letters(settings, EVERY))

            await until(all_resolved)
            await ledger.hear(agent)
    await drain(settings.model_copy(update={"outbox_sweep_after": 0.5}))
    assert sum(cuts.counts.values()) >= 3, f"seed {seed} cut too little: {cuts.counts}"
    await ledger.balance(settings.database)
    assert await rows(settings.database, "SELECT 1 FROM dead_letters WHERE replays <> 1") == []
