"""kill -9 between any two steps of a batch: nothing is lost, nothing doubled, everything confirmed."""

import signal

import pytest
from support.broker import client
from support.events import created, logged
from support.ledger import Ledger
from support.workers import drain, worker_process

from contracts.identifiers import uuid7

POINTS = (
    "after_decode",
    "before_commit",
    "after_commit",
    "before_acknowledge",
    "before_publish",
    "after_publish",
)


@pytest.mark.parametrize("point", POINTS)
async def test_a_worker_that_dies_at_any_point_leaves_an_account_that_balances(point, settings):
    """The next worker finishes what the dead one began."""
    ledger = Ledger()
    quick = settings.model_copy(update={"outbox_sweep_after": 0.5})
    tasks = [uuid7() for _ in range(10)]
    events = [created(task) for task in tasks] + [logged(tasks[at % 10]) for at in range(150)]
    async with client(settings.broker) as agent:
        async with worker_process(quick, WORKER_CRASH_POINT=point) as doomed:
            await ledger.publish(agent, events)
            assert await doomed.ended() == -signal.SIGKILL
        await drain(quick)
        await ledger.hear(agent)
    await ledger.balance(settings.database)
