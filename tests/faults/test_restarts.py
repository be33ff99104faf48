"""A service that goes away and comes back while agents publish and wait: a backlog, and nothing else."""

import asyncio

import pytest
from support.events import created, logged
from support.ledger import Ledger
from support.workers import worker_process

from contracts.client import Publisher
from contracts.identifiers import uuid7

AGENTS = 4
EVENTS = 150


async def publish_and_wait(url: str, ledger: Ledger, meanwhile) -> None:
    """Agents that publish and wait until each event is persisted, while something happens to a service."""
    halfway = asyncio.Event()

    async def agent(number: int) -> None:
        async with Publisher(url, source=f"/agents/{number}", timeout=100) as publisher:
            task = uuid7()
            events = [created(task), *(logged(task) for _ in range(EVENTS))]
            for at, event in enumerate(events):
                await publisher.persisted(event)
                ledger.published.append(event)
                if at == EVENTS // 3:
                    halfway.set()

    async with asyncio.timeout(110), asyncio.TaskGroup() as tasks:
        for number in range(AGENTS):
            tasks.create_task(agent(number))
        await halfway.wait()
        await asyncio.to_thread(meanwhile)


@pytest.mark.parametrize("how", ["restart", "kill and start"])
async def test_postgresql_goes_away_and_comes_back(how, settings, postgres):
    """Messages wait unacknowledged; each is stored once, every agent hears of each of its events."""

    def meanwhile() -> None:
        if how == "restart":
            postgres.restart()
        else:
            postgres.kill()
            postgres.start()

    ledger = Ledger()
    quick = settings.model_copy(update={"outbox_sweep_after": 1.0})
    async with worker_process(quick) as worker:
        await publish_and_wait(settings.broker, ledger, meanwhile)
        worker.signal(15)
        assert await worker.ended() == 0
    await ledger.balance(settings.database)


@pytest.mark.parametrize("how", ["restart", "kill and start"])
async def test_rabbitmq_goes_away_and_comes_back(how, settings, rabbitmq):
    """Workers and publishers reconnect; what was unanswered is published again and found to be a duplicate."""

    def meanwhile() -> None:
        if how == "restart":
            rabbitmq.restart()
        else:
            rabbitmq.kill()
            rabbitmq.start()

    ledger = Ledger()
    quick = settings.model_copy(update={"outbox_sweep_after": 1.0})
    async with worker_process(quick) as worker:
        await publish_and_wait(settings.broker, ledger, meanwhile)
        worker.signal(15)
        assert await worker.ended() == 0
    await ledger.balance(settings.database)
