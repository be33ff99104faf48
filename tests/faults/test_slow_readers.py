"""A worker that cannot go on still reads its sockets, and one whose broker is silent still ends when told to."""

import asyncio

from support.broker import client
from support.events import logged
from support.faults import by_way_of, short_heartbeats  # noqa: F401 (a fixture)
from support.ledger import Ledger
from support.proxy import proxy_before
from support.verdicts import everything_is_accounted_for
from support.waiting import until
from support.workers import drain, running_worker, worker_process

MEBIBYTE = 1024 * 1024


async def test_the_socket_is_read_while_the_database_is_away(settings):
    """Bodies past the budget wait in the queue, not in the socket: the broker has no reason to cut the worker off."""
    ledger = Ledger()
    async with (
        proxy_before(settings.database) as (database, database_url),
        proxy_before(settings.broker) as (broker, amqp_url),
        client(settings.broker) as agent,
    ):
        places = {"database_url": database_url, "amqp_url": amqp_url}
        here = by_way_of(settings, **places, memory_budget=4 * MEBIBYTE)
        async with running_worker(here) as worker:
            await database.refuse()
            await ledger.publish(agent, [logged(output_full="x" * MEBIBYTE) for _ in range(16)])
            await until(lambda: worker.app.attachment.in_hand >= 4)
            await until(lambda: broker.bytes_to_client > 4 * MEBIBYTE and not broker.untaken)
            assert not worker.app.attachment.absent
            await database.heal()
            await ledger.hear(agent)
    await everything_is_accounted_for(ledger, settings)


async def test_a_worker_ends_when_told_to_though_the_broker_is_silent(settings):
    """Half-open: nothing answers and no connection ends. The grace period, a few seconds, and it is gone."""
    ledger = Ledger()
    async with proxy_before(settings.broker) as (broker, url), client(settings.broker) as agent:
        await ledger.publish(agent, [logged() for _ in range(20)])
        here = by_way_of(settings, amqp_url=url)
        async with worker_process(here, WORKER_GRACE="1") as worker:
            await ledger.hear(agent)
            broker.swallow()
            worker.signal(15)
            async with asyncio.timeout(
                25
            ):  # an answer was waited for for 30, and the silence is noticed after 93
                assert await worker.ended() == 0
        broker.cut()
        await drain(settings)
    await everything_is_accounted_for(ledger, settings)


async def test_a_silence_that_is_noticed_while_it_ends_does_not_keep_it(
    settings,
    short_heartbeats,  # noqa: F811
):
    """aiormq cancels whoever waits for an answer then: the worker must not take that for the end of its shutdown."""
    async with proxy_before(settings.broker) as (broker, url):
        async with running_worker(by_way_of(settings, amqp_url=url)) as worker:
            broker.swallow()
        assert not worker.task.cancelled()
        broker.cut()
