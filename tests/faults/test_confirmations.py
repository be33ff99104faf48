"""Confirmations that cannot be delivered now: the outbox keeps them until the broker has taken all of it."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
from support.broker import client
from support.events import logged
from support.ledger import Ledger
from support.proxy import proxy_before
from support.tables import count, rows
from support.waiting import until
from support.workers import drain, running_worker, worker_process

from worker import relay
from worker.broker import topology
from worker.broker.publisher import ConfirmedPublisher
from worker.store.database import Database

TENANT = "acme"


@asynccontextmanager
async def full_listener(settings) -> AsyncIterator[aio_pika.abc.AbstractQueue]:
    """A queue for one tenant's confirmations that takes one and refuses all others."""
    async with await aio_pika.connect(settings.broker) as connection:
        channel = await connection.channel()
        full = await channel.declare_queue(
            exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
        )
        await full.bind(topology.CONFIRMATIONS, f"#.{TENANT}")
        yield full


async def test_a_nack_keeps_the_outbox_row_and_nobody_else_waits(settings):
    """A listener's full queue refuses confirmations: its rows stay, all others go, and it gets them when it has room."""
    ledger = Ledger()
    single = settings.model_copy(update={"batch_messages": 1, "outbox_sweep_after": 1.0})
    async with (
        client(settings.broker) as agent,
        full_listener(settings) as full,
        running_worker(single) as worker,
    ):
        await ledger.publish(agent, [logged(tenant=TENANT) for _ in range(150)])
        await ledger.publish(agent, [logged() for _ in range(50)])
        await ledger.hear(agent)
        await until(lambda: _waiting_rows(settings, 149))
        assert await _tenants_waiting(settings) == {TENANT}
        # Of the refused ones other listeners hear again at each sweep, and no more often.
        before = agent.confirmations.qsize()
        swept = await _sweeps(worker, agent, 3)
        assert agent.confirmations.qsize() - before <= 149 * (swept + 2)
        await full.unbind(topology.CONFIRMATIONS, f"#.{TENANT}")
        await until(lambda: _waiting_rows(settings, 0))
    await ledger.balance(settings.database)


async def test_a_connection_on_which_confirmations_are_refused_for_long_is_replaced(
    settings, monkeypatch
):
    """A channel may be refused for ever, and from here that looks like a full queue: another one is tried, nothing is lost."""
    monkeypatch.setattr(relay, "_OLDEST_REFUSED", 0.0)
    ledger = Ledger()
    quick = settings.model_copy(update={"batch_messages": 1, "outbox_sweep_after": 0.5})
    async with (
        client(settings.broker) as agent,
        full_listener(settings) as full,
        running_worker(quick) as worker,
    ):
        first = worker.app.relay._opened
        await ledger.publish(agent, [logged(tenant=TENANT) for _ in range(20)])
        await until(lambda: worker.app.relay._opened > first)
        await full.unbind(topology.CONFIRMATIONS, f"#.{TENANT}")
        await ledger.hear(agent)
        await until(lambda: _waiting_rows(settings, 0))
    await ledger.balance(settings.database)


async def test_a_relay_that_is_told_to_end_while_it_loses_its_connection_ends(settings):
    """It is still ending what worked over the old connection: it does not take a new one."""
    losing, ending, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
    database = Database(settings.database, name="test")

    async def slow_to_end(_: ConfirmedPublisher) -> None:
        losing.set()
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await ended.wait()

    async with proxy_before(settings.broker) as (proxy, url):
        stopped = relay.Relay(database, url, worker="test")
        stopped._sweep_regularly = slow_to_end
        running = asyncio.create_task(stopped.run())
        await losing.wait()
        await proxy.inflict("cut")
        await ending.wait()
        running.cancel()
        ended.set()
        await asyncio.wait([running], timeout=30)
        assert running.cancelled()
    await database.close()


async def _waiting_rows(settings, number: int) -> bool:
    return await count(settings.database, "outbox") == number


async def _tenants_waiting(settings) -> set[str]:
    found = await rows(
        settings.database,
        "SELECT DISTINCT entry->>'tenant' AS tenant FROM outbox, json_array_elements(payload->'groups') entry",
    )
    return {row["tenant"] for row in found}


async def _sweeps(worker, agent, number: int) -> int:
    """Wait for so many passes over the outbox; how many there were."""
    passes = 0
    sweep_once = worker.app.relay.sweep_once

    async def counted(publisher):
        nonlocal passes
        passes += 1
        return await sweep_once(publisher)

    worker.app.relay.sweep_once = counted
    await until(lambda: passes >= number)
    return passes


async def test_replies_that_nobody_takes_end_with_the_brokers_answer(settings):
    """A reply queue that is gone, and one that is full: the event is confirmed and the outbox is empty."""
    ledger = Ledger()
    async with client(settings.broker) as agent, await aio_pika.connect(settings.broker) as other:
        channel = await other.channel()
        full = await channel.declare_queue(
            "agent.replies.full",
            exclusive=True,
            arguments={"x-max-length": 1, "x-overflow": "reject-publish"},
        )
        for reply_to in ("agent.replies.gone", full.name, full.name, full.name):
            await ledger.publish(agent, [logged() for _ in range(5)], reply_to=reply_to)
        await drain(settings)
        await ledger.hear(agent)
        assert (await full.get(timeout=10)) is not None
    await ledger.balance(settings.database)


async def test_what_the_broker_has_not_taken_outlives_the_worker(settings, rabbitmq):
    """Publishing is blocked by an alarm and the worker killed: every row waits, and the next worker publishes it."""
    ledger = Ledger()
    quick = settings.model_copy(update={"outbox_sweep_after": 0.5})
    async with client(settings.broker) as agent:
        await ledger.publish(agent, [logged() for _ in range(100)])
        await asyncio.to_thread(rabbitmq.control, "set_vm_memory_high_watermark", "0.0000001")
        try:
            async with worker_process(quick) as doomed:

                async def stored() -> bool:
                    return await count(settings.database, "execution_logs") == 100

                await until(stored)
                assert await count(settings.database, "outbox") > 0
                doomed.signal(signal.SIGKILL)
                await doomed.ended()
        finally:
            await asyncio.to_thread(rabbitmq.control, "set_vm_memory_high_watermark", "0.4")
        assert await count(settings.database, "outbox") > 0
        await drain(quick)
        await ledger.hear(agent)
    await ledger.balance(settings.database)
