"""A service that is away, for a moment or longer, in every way in which a network can take it away."""

import pytest
from support.broker import client
from support.faults import by_way_of, short_heartbeats  # noqa: F401 (a fixture)
from support.ledger import Ledger
from support.proxy import Fault, proxy_before
from support.traffic import elapse, traffic
from support.verdicts import everything_is_accounted_for, outbox_is_empty
from support.workers import running_worker

MOMENT, SECONDS, MINUTE = 0.4, 5.0, 60.0
FAULTS = ("cut", "refuse", "stall", "swallow", "slow")
LONG = [pytest.mark.torture, pytest.mark.timeout(400)]
CASES = [
    *((fault, MOMENT) for fault in FAULTS),
    ("refuse", SECONDS),
    *(pytest.param(fault, SECONDS, marks=LONG) for fault in FAULTS if fault != "refuse"),
    *(pytest.param(fault, MINUTE, marks=LONG) for fault in FAULTS),
]


@pytest.mark.parametrize(("fault", "length"), CASES)
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
            await outbox_is_empty(settings)
        await everything_is_accounted_for(ledger, settings)


@pytest.mark.parametrize(("fault", "length"), CASES)
async def test_the_broker_is_away_for_a_while(
    fault: Fault,
    length,
    settings,
    short_heartbeats,  # noqa: F811
):
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
            await outbox_is_empty(settings)
            await worker.attached()
        await everything_is_accounted_for(ledger, settings)
