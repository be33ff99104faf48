"""Faults of both services at random, one on top of another, while agents publish: the ledger balances in the end."""

import asyncio
from random import Random

import pytest
from support.broker import client
from support.faults import by_way_of, short_heartbeats  # noqa: F401 (a fixture)
from support.ledger import Ledger
from support.proxy import Proxy, proxy_before
from support.tables import rows
from support.traffic import elapse, traffic
from support.verdicts import everything_is_accounted_for
from support.workers import running_worker

FAULTS = ("cut", "refuse", "stall", "swallow", "slow", "terminate")
LENGTHS = [
    8,
    pytest.param(300, marks=[pytest.mark.torture, pytest.mark.timeout(900)]),
]


async def torment(
    proxies: list[Proxy], database: str, chances: Random, seconds: float
) -> list[str]:
    """One fault after another until the time is over; each ends before the next one of its service begins."""
    inflicted = []
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        which = chances.randrange(len(proxies))
        fault = chances.choice(FAULTS)
        inflicted.append(f"{('database', 'broker')[which]} {fault}")
        if fault == "terminate":
            await rows(
                database,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
        else:
            await proxies[which].inflict(fault)
        await elapse(chances.uniform(0.05, 1.5))
        await proxies[which].heal()
        await elapse(chances.uniform(0, 1))
    return inflicted


@pytest.mark.parametrize("seconds", LENGTHS)
async def test_whatever_happens_to_both_services_the_ledger_balances(
    seconds,
    settings,
    chances,
    short_heartbeats,  # noqa: F811
):
    """Two workers, faults between them and both services, in an order that the seed repeats."""
    ledger = Ledger()
    async with (
        proxy_before(settings.database) as (database, database_url),
        proxy_before(settings.broker) as (broker, amqp_url),
        client(settings.broker) as agent,
    ):
        here = by_way_of(settings, database_url=database_url, amqp_url=amqp_url)
        async with running_worker(here), running_worker(here):
            async with traffic(agent, ledger):
                inflicted = await torment([database, broker], settings.database, chances, seconds)
            done = f"{len(ledger.published)} messages, {len(inflicted)} faults: {inflicted}"
            print(done)  # noqa: T201 (pytest shows it where the test fails)
            await ledger.hear(agent)
    await everything_is_accounted_for(ledger, settings)
