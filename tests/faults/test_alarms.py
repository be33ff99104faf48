"""A broker without memory or disk space takes no publishes: draining goes on, and memory does not grow."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.broker import client
from support.events import logged
from support.ledger import Ledger
from support.tables import connected, count
from support.verdicts import everything_is_accounted_for
from support.waiting import until
from support.workers import running_worker

from contracts.identifiers import uuid7
from worker.broker.connection import connect
from worker.broker.publisher import ConfirmedPublisher
from worker.relay import _AT_ONCE_BYTES, Relay
from worker.store.database import Database

ALARMS = {
    "memory": (
        ("set_vm_memory_high_watermark", "0.0000001"),
        ("set_vm_memory_high_watermark", "0.4"),
    ),
    "disk": (("set_disk_free_limit", "900000GB"), ("set_disk_free_limit", "1MB")),
}


@asynccontextmanager
async def alarm(rabbitmq, kind: str) -> AsyncIterator[None]:
    """The broker has no memory, or no disk space, as long as the block lasts."""
    begin, end = ALARMS[kind]
    await asyncio.to_thread(rabbitmq.control, *begin)
    try:
        await until(lambda: _raised(rabbitmq, kind), 60)
        yield
    finally:
        await asyncio.to_thread(rabbitmq.control, *end)


async def _raised(rabbitmq, kind: str) -> bool:
    alarms = await asyncio.to_thread(rabbitmq.control, "eval", "rabbit_alarm:get_alarms().")
    return kind in alarms


@pytest.mark.parametrize("kind", ALARMS)
async def test_draining_goes_on_under_an_alarm(kind, settings, rabbitmq):
    """Everything is stored meanwhile; the confirmations follow, each of its outcome, when the alarm is over."""
    ledger = Ledger()
    quick = settings.model_copy(update={"outbox_sweep_after": 0.5, "grace": 1})
    async with client(settings.broker) as agent:
        await ledger.publish(agent, [logged() for _ in range(200)])
        await ledger.publish_bad(agent, b"not json", "undecodable", "execution.logged")
        async with alarm(rabbitmq, kind):
            async with running_worker(quick):
                await until(lambda: _all_stored(settings), 60)
                assert agent.confirmations.empty()
            # The worker has ended in its grace period: what it could not publish is left in the outbox.
            assert await count(settings.database, "outbox") > 0
        async with running_worker(quick):
            await ledger.hear(agent)
            await until(lambda: _outbox_is_empty(settings), 60)
    await everything_is_accounted_for(ledger, settings)


async def _all_stored(settings) -> bool:
    return await count(settings.database, "execution_logs") == 200


async def _outbox_is_empty(settings) -> bool:
    return await count(settings.database, "outbox") == 0


async def test_sweeps_under_an_alarm_do_not_fill_memory(settings, rabbitmq):
    """Rows that cannot be published are not written to the socket again and again, sweep after sweep."""
    rows = 200
    payload = f'{{"groups": [{{"family": "f", "outcome": "persisted", "tenant": "t", "items": [{{"id": "{"x" * 60_000}"}}]}}], "replies": []}}'
    async with connected(settings.database) as database:
        await database.executemany(
            "INSERT INTO outbox (id, created_at, family, payload) VALUES ($1, now() - interval '1 hour', 'f', $2)",
            [(uuid7(), payload) for _ in range(rows)],
        )
    database = Database(settings.database, name="test")
    relay = Relay(database, settings.broker, worker="test", sweep_after=0.2)
    async with alarm(rabbitmq, "memory"):
        connection = await connect(settings.broker, name="test")
        publisher = await ConfirmedPublisher.open(connection)
        try:
            waiting = []
            for _ in range(6):
                try:
                    async with asyncio.timeout(1):
                        await relay.sweep_once(publisher)
                except (TimeoutError, Exception):  # noqa: BLE001 (what it does is shown by the socket)
                    pass
                waiting.append(connection._writer.transport.get_write_buffer_size())
        finally:
            await connection.close()
            await database.close()
    assert max(waiting) <= 1.5 * _AT_ONCE_BYTES, waiting
