"""A message that kills every worker that handles it ends as a dead letter; its neighbours land."""

import asyncio
import signal

import pytest
from support import queues
from support.broker import client
from support.events import logged
from support.figures import report
from support.killers import (
    MEANS,
    check_account,
    deaths,
    fragile_workers,
    killer,
    publish_among,
    settled,
)
from support.tables import count
from support.workers import drain

from worker import telemetry


async def run_until_settled(settings, killers, neighbours: int, seconds: float) -> int:
    """Two supervised processes work until nothing is left; returns how often one died."""
    quick = settings.model_copy(update={"outbox_sweep_after": 0.5})
    async with client(settings.broker) as agent:
        innocent = await publish_among(agent, killers, neighbours)
        async with fragile_workers(quick, 2) as run:
            await settled(settings, len(innocent), len(killers), seconds)
            run.process.send_signal(signal.SIGTERM)
            assert await run.ended() == 0
    await check_account(settings, innocent, killers)
    return deaths(run)


@pytest.mark.slow
async def test_a_message_that_kills_workers_is_cornered_and_its_neighbours_land(settings):
    """Among eighty neighbours: alone after a few deaths, and a letter after three more; the supervisor ends with 0."""
    assert 3 <= await run_until_settled(settings, [killer("SIGKILL")], 80, seconds=90) <= 12


async def test_innocents_that_outages_redelivered_are_soon_in_full_batches_again(settings):
    """Two thousand handed out three times: eight are handled alone, and all take some fifty transactions."""
    innocent = [logged() for _ in range(2000)]
    async with client(settings.broker) as agent:
        for start in range(0, 2000, 200):
            await asyncio.gather(*(agent.publish(event) for event in innocent[start : start + 200]))
    await queues.hand_out(settings.broker, "worker.execution-log", 2000, times=3)
    before, began = _transactions(), asyncio.get_running_loop().time()
    await drain(settings)
    took = asyncio.get_running_loop().time() - began
    made = _transactions() - before
    report(f"2,000 innocents after three redeliveries: {made} transactions, {took:.1f} s")
    assert made < 80
    assert await count(settings.database, "execution_logs") == 2000
    assert await count(settings.database, "dead_letters") == 0
    assert await count(settings.database, "suspects WHERE ended_at > started_at") == 8
    assert await count(settings.database, "suspects") == 8


def _transactions() -> int:
    return int(telemetry.transactions.labels("execution-log", "committed")._value.get())


@pytest.mark.torture
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("means", MEANS)
async def test_one_killer_by_each_means_among_two_thousand(means, settings):
    """However a message kills, it takes few deaths to find it, and no neighbour pays for it."""
    found = await run_until_settled(settings, [killer(means)], 2000, seconds=900)
    report(f"{found} deaths for one killer by {means} among 2,000 neighbours")
    assert 3 <= found <= 15


@pytest.mark.torture
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("means", [("SIGKILL", "abort", "exit"), MEANS], ids=["three", "six"])
async def test_several_killers_at_once_among_two_thousand(means, settings):
    """Each is found for itself: the deaths of one do not make letters of the others' neighbours."""
    found = await run_until_settled(settings, [killer(one) for one in means], 2000, seconds=1000)
    report(f"{found} deaths for {len(means)} killers among 2,000 neighbours")
    assert 3 * len(means) <= found <= 12 * len(means)
