"""Fifty workers and a broker that restarts: they come back spread over time, all of them, and nothing is lost."""

import asyncio
import re
import signal
from contextlib import suppress
from datetime import datetime

import pytest
from support import queues
from support.broker import client
from support.events import logged
from support.figures import report
from support.ledger import Ledger
from support.tables import rows
from support.waiting import until
from support.workers import worker_process

from worker.broker.connection import BROKER_ERRORS

WORKERS = 50
QUEUE = "worker.execution-log"


def accepted(log: str) -> list[float]:
    """When a broker accepted AMQP connections, by its own log."""
    lines = re.findall(
        r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6})\S* .*accepting AMQP connection", log
    )
    return [datetime.fromisoformat(f"{line}+00:00").timestamp() for line in lines]


def most_within(times: list[float], seconds: float) -> int:
    """The most of these times that lie within so many seconds of each other."""
    return max(sum(first <= time < first + seconds for time in times) for first in times)


@pytest.mark.torture
@pytest.mark.timeout(1800)
async def test_fifty_workers_reconnect_without_a_storm(settings, postgres, rabbitmq):
    """No tenth of a second sees more than a third of their connections; each is attached again to its queues."""
    if rabbitmq.log is None:
        pytest.skip("this broker's log cannot be read")
    ledger = Ledger()
    usual = settings.model_copy(
        update={"retry_longest": 3.0, "outbox_sweep_after": 1.0, "log_level": "warning"}
    )

    async def all_attached() -> bool:
        with suppress(*BROKER_ERRORS):  # a queue has no leader in the first moments after a restart
            return await queues.consumers(usual.broker, QUEUE) == WORKERS
        return False

    async with worker_process(
        usual, "--processes", str(WORKERS), WORKER_START_TIMEOUT="600", WORKER_GRACE="100"
    ) as run:
        await until(all_attached, seconds=900)
        async with client(usual.broker) as agent:
            await ledger.publish(agent, [logged() for _ in range(500)])
        await asyncio.to_thread(rabbitmq.stop)
        before = rabbitmq.log.stat().st_size
        loop = asyncio.get_running_loop()
        over = loop.time() + 10
        await until(lambda: loop.time() >= over)
        await asyncio.to_thread(rabbitmq.start)
        back = loop.time()
        await until(all_attached, seconds=300)
        took = loop.time() - back
        with rabbitmq.log.open("rb") as log:
            log.seek(before)
            times = accepted(log.read().decode(errors="replace"))
        async with client(usual.broker) as agent:
            await ledger.publish(agent, [logged() for _ in range(500)])
            await until(lambda: _stored(usual.database, 1000), seconds=120)
        run.signal(signal.SIGTERM)
        assert await asyncio.wait_for(run.process.wait(), 300) == 0
    await until(lambda: _stored(usual.database, 1000))
    report(
        f"{WORKERS} workers after a broker restart: {len(times)} connections in {times[-1] - times[0]:.1f} s, "
        f"at most {most_within(times, 0.1)} within 0.1 s and {most_within(times, 1)} within 1 s; "
        f"all attached {took:.1f} s after its return"
    )
    await ledger.balance(usual.database)
    assert len(times) <= 4 * WORKERS
    assert most_within(times, 0.1) <= len(times) / 3


async def _stored(url: str, wanted: int) -> bool:
    [found] = await rows(url, "SELECT count(*) AS n FROM execution_logs")
    return found["n"] >= wanted
