"""A service is away for a minute under load: a backlog, no dead letter, and work again as soon as it is back."""

import asyncio
import signal

import pytest
from support.broker import client
from support.events import logged
from support.figures import report
from support.ledger import Ledger
from support.tables import count
from support.waiting import until
from support.workers import worker_process

AWAY = 60.0
RECOVERED = 20.0
"""Seconds that recovery may take on a loaded machine; 5 are promised, and what it took is reported."""


async def outage(service) -> float:
    """Stop a service for a minute and start it again; when it was back, by the clock of the loop."""
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(service.stop)
    over = loop.time() + AWAY
    await until(lambda: loop.time() >= over, seconds=2 * AWAY)
    await asyncio.to_thread(service.start)
    return loop.time()


@pytest.mark.torture
@pytest.mark.timeout(600)
async def test_postgresql_is_away_for_a_minute(settings, postgres):
    """What is published meanwhile waits in RabbitMQ; the first commit follows the return within seconds."""
    ledger = Ledger()
    usual = settings.model_copy(update={"retry_longest": 3.0, "outbox_sweep_after": 1.0})
    async with client(usual.broker) as agent, worker_process(usual) as worker:
        await ledger.publish(agent, [logged() for _ in range(300)])
        await ledger.hear(agent)
        async with asyncio.TaskGroup() as tasks:
            away = tasks.create_task(outage(postgres))
            tasks.create_task(ledger.publish(agent, [logged() for _ in range(300)]))
        await _first_commit(usual, 300)
        took = asyncio.get_running_loop().time() - away.result()
        await ledger.hear(agent)
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0
    report(f"PostgreSQL away for {AWAY:.0f} s: first commit {took:.2f} s after its return")
    await ledger.balance(usual.database)
    assert took < RECOVERED


@pytest.mark.torture
@pytest.mark.timeout(600)
async def test_rabbitmq_is_away_for_a_minute(settings, rabbitmq):
    """What it had taken is delivered after its return, and the first commit follows within seconds."""
    ledger = Ledger()
    usual = settings.model_copy(update={"retry_longest": 3.0, "outbox_sweep_after": 1.0})
    async with worker_process(usual) as worker:
        async with client(usual.broker) as agent:
            await ledger.publish(agent, [logged() for _ in range(300)])
            await ledger.hear(agent)
        back = await outage(rabbitmq)
        async with client(usual.broker) as agent:
            await ledger.publish(agent, [logged()])
            await _first_commit(usual, 300)
            took = asyncio.get_running_loop().time() - back
            await ledger.publish(agent, [logged() for _ in range(299)])
            await ledger.hear(agent)
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0
    report(f"RabbitMQ away for {AWAY:.0f} s: first commit {took:.2f} s after its return")
    await ledger.balance(usual.database)
    assert took < RECOVERED


async def _first_commit(settings, before: int) -> None:
    async def more() -> bool:
        return await count(settings.database, "execution_logs") > before

    await until(more, seconds=120)
