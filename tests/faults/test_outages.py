"""A service that is away, for a moment or longer, in every way in which a network can take it away."""

from functools import partial

import pytest
from support.broker import client
from support.ledger import Ledger
from support.proxy import Fault, proxy_before
from support.traffic import elapse, traffic
from support.verdicts import everything_is_accounted_for
from support.workers import running_worker

from worker import app, attachment, relay
from worker.broker.connection import connect
from worker.settings import Settings

MOMENT, SECONDS, MINUTE = 0.4, 5.0, 60.0
LENGTHS = [
    MOMENT,
    pytest.param(SECONDS, marks=pytest.mark.slow),
    pytest.param(MINUTE, marks=[pytest.mark.torture, pytest.mark.timeout(400)]),
]


def by_way_of(settings: Settings, **given) -> Settings:
    """Settings with other addresses, and a database that is given up after a second of silence."""
    quick = {"outbox_sweep_after": 1.0, "statement_timeout": 1.0}
    return Settings(**{**settings.model_dump(), **quick, **given})


@pytest.fixture
def short_heartbeats(monkeypatch):
    """A broker that is silent for three seconds is noticed."""
    for module in (app, attachment, relay):
        monkeypatch.setattr(module, "connect", partial(connect, heartbeat=1))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("fault", ["cut", "refuse", "stall", "swallow", "slow"])
async def test_the_database_is_away_for_a_while(fault: Fault, length, settings):
    """A backlog and nothing else: every message ends as what it is, once."""
    ledger = Ledger()
    async with proxy_before(settings.database) as (proxy, url), client(settings.broker) as agent:
        async with running_worker(by_way_of(settings, database_url=url)):
            async with traffic(agent, ledger):
                await elapse(MOMENT)
                assert proxy.connections > 0
                await proxy.inflict(fault)
                await elapse(length)
                await proxy.heal()
                await elapse(MOMENT)
            await ledger.hear(agent)
        await everything_is_accounted_for(ledger, settings)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("fault", ["cut", "refuse", "stall", "swallow", "slow"])
async def test_the_broker_is_away_for_a_while(fault: Fault, length, settings, short_heartbeats):
    """The worker attaches again by itself, whatever became of its old connections."""
    ledger = Ledger()
    async with proxy_before(settings.broker) as (proxy, url), client(settings.broker) as agent:
        async with running_worker(by_way_of(settings, amqp_url=url)) as worker:
            async with traffic(agent, ledger):
                await elapse(MOMENT)
                assert proxy.connections > 0
                await proxy.inflict(fault)
                await elapse(length)
                await proxy.heal()
                await elapse(MOMENT)
            await ledger.hear(agent)
            await worker.attached()
        await everything_is_accounted_for(ledger, settings)
