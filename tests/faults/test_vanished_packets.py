"""Packets vanish on their way to the worker for a minute, and no connection is told: work goes on soon after."""

import time

import pytest
from support.broker import client
from support.events import logged
from support.figures import report
from support.ledger import Ledger
from support.namespaces import missing_means, namespace
from support.proxy import proxy_before
from support.tables import count
from support.traffic import elapse, traffic
from support.waiting import until
from support.workers import worker_process

from worker.settings import Settings

AWAY = 60.0
RECOVERED = 20.0
"""Seconds that recovery may take on a loaded machine; 5 are promised, and what it took is reported."""


@pytest.mark.torture
@pytest.mark.timeout(400)
@pytest.mark.parametrize("flow", ["under load", "at rest"])
async def test_packets_vanish_for_a_minute(flow, settings):
    """With the default settings but one: no dead letter, nothing twice, and the first commit seconds after the way is open."""
    reason = missing_means()
    if reason is not None:
        pytest.skip(reason)
    ledger = Ledger()
    async with (
        namespace() as network,
        proxy_before(settings.database, network.ours) as (_, database_url),
        proxy_before(settings.broker, network.ours) as (_, amqp_url),
        client(settings.broker) as agent,
    ):
        usual = Settings.load(database_url=database_url, amqp_url=amqp_url, http_port=0)
        # Longer than the silence: no statement must be what notices it.
        own = {"WORKER_STATEMENT_TIMEOUT": "300"}
        async with worker_process(usual, within=network.enter, **own) as worker:
            await ledger.publish(agent, [logged() for _ in range(100)])
            await ledger.hear(agent)
            if flow == "under load":
                async with traffic(agent, ledger):
                    await elapse(0.5)
                    took = await _minute_of_silence(network, settings)
            else:
                publish = ledger.publish(agent, [logged() for _ in range(100)])
                took = await _minute_of_silence(network, settings, publish)
            began = time.monotonic()
            await ledger.hear(agent)
            all_told = took + time.monotonic() - began
            worker.process.terminate()
            assert await worker.ended() == 0
    report(
        f"packets vanished for {AWAY:.0f} s {flow}: first commit {took:.2f} s after that, all {all_told:.2f} s"
    )
    await ledger.balance(settings.database)
    assert took < RECOVERED


async def _minute_of_silence(network, settings, meanwhile=None) -> float:
    """Seconds from the end of the silence to the first commit after it."""
    await network.vanish()
    await elapse(AWAY)
    if meanwhile is not None:
        await meanwhile
    before = await _stored(settings)
    await network.reappear()
    back = time.monotonic()

    async def more() -> bool:
        return await _stored(settings) > before

    await until(more, seconds=200)
    return time.monotonic() - back


async def _stored(settings) -> int:
    return await count(settings.database, "execution_logs")
