"""A confirmation that the broker did not take stays in the outbox; one that it took waits for nobody's deletion."""

from datetime import UTC, datetime

import aio_pika
import orjson
import pytest
from support.broker import client
from support.events import logged
from support.tables import connected, count
from support.waiting import until
from support.workers import running_worker

from contracts.identifiers import uuid7
from worker import relay, telemetry
from worker.broker import topology
from worker.broker.connection import connect
from worker.operations.services import whole_topology
from worker.store import outbox
from worker.store.database import Database
from worker.store.outbox import OutboxEntry


async def test_a_row_stays_until_the_broker_has_taken_its_confirmation(settings):
    """While the exchange is gone every publish fails and the row stays; once it is back it is sent and deleted."""
    failed = telemetry.outbox_failed._value.get
    before = failed()
    async with running_worker(settings):
        async with await aio_pika.connect(settings.broker) as other:
            channel = await other.channel()
            await channel.exchange_delete(topology.CONFIRMATIONS)
            messages = await channel.get_exchange(topology.MESSAGES, ensure=False)
            message = aio_pika.Message(logged().to_json(), delivery_mode=2)
            await messages.publish(message, "execution.logged")
        await until(lambda: failed() > before)
        assert await count(settings.database, "outbox") == 1
        connection = await connect(settings.broker, name="mend")
        assert await topology.apply(connection, whole_topology()) == [
            "exchange agent.confirmations"
        ]
        await connection.close()

        async def sent() -> bool:
            return await count(settings.database, "outbox") == 0

        await until(sent)
        async with client(settings.broker) as agent:
            await agent.publish(logged())
            assert len((await agent.confirmed(1))["persisted"]) == 1
    assert await count(settings.database, "execution_logs") == 2


async def test_a_sweep_holds_no_more_than_a_few_megabytes_of_rows(settings, database_url):
    """After an outage thousands of large rows may wait: they go in portions, a row that is larger than one alone."""
    sizes = [60_000] * 5 + [300_000] + [60_000] * 5 + [60]
    database = Database(database_url, name="test")
    async with connected(database_url) as connection:
        await connection.executemany(
            "INSERT INTO outbox (id, created_at, family, payload) VALUES ($1, now() - $2 * interval '1 s', 'f', $3)",
            [(uuid7(), 1_000 - at, _row_of(size)) for at, size in enumerate(sizes)],
        )
    try:
        async with database.transaction() as driver:
            portions, behind, more = [], None, True
            while more:
                entries, more = await outbox.claim(driver, 30, 5, 150_000, behind)
                portions.append([entry.size for entry in entries])
                behind = (entries[-1].committed_at, entries[-1].id)
            small, _ = await outbox.claim(driver, 30, 5, 1)
    finally:
        await database.close()
    found = [size for portion in portions for size in portion]
    assert found == pytest.approx(sizes, abs=4)
    assert all(len(portion) == 1 or sum(portion) <= 150_000 for portion in portions)
    assert pytest.approx([300_000], abs=4) in portions
    assert len(small) == 1


def _row_of(size: int) -> str:
    return orjson.dumps({"groups": [], "replies": [], "x": "y" * (size - 33)}).decode()


def test_confirmations_that_wait_are_published_in_portions(settings, monkeypatch):
    """Rejections carry their reasons: a thousand of them are megabytes, and none but the first may go past the bound."""
    waiting = relay.Relay(Database(settings.database, name="test"), settings.broker, worker="test")
    monkeypatch.setattr(relay, "_MOST_PENDING_BYTES", 2**30)
    half = relay._AT_ONCE_BYTES // 2
    for size in (half, half, 1, 3 * half, half):
        content = {"groups": [], "replies": []}
        waiting.submit(OutboxEntry(uuid7(), "f", content, datetime.now(UTC), size))
    portions = []
    while waiting._pending:
        portions.append([entry.size for entry in waiting._next()])
    assert portions == [[half, half], [1], [3 * half], [half]]


def test_confirmations_past_the_bound_are_left_to_the_sweep(settings):
    """While publishing is blocked the newest wait in memory, as many as the bound allows; nobody waits for the others."""
    waiting = relay.Relay(Database(settings.database, name="test"), settings.broker, worker="test")
    third = relay._MOST_PENDING_BYTES // 3
    content = {"groups": [], "replies": []}
    entries = [OutboxEntry(uuid7(), "f", content, datetime.now(UTC), third) for _ in range(5)]
    for entry in entries:
        waiting.submit(entry)
    assert list(waiting._pending) == entries[2:]
    assert (waiting._pending_bytes, waiting._unfinished) == (3 * third, 3)


async def test_no_confirmation_waits_for_the_deletion_of_anothers_row(settings, monkeypatch):
    """While one row cannot be deleted the others are confirmed all the same, however many, and all rows go in the end."""
    monkeypatch.setattr(
        relay, "_MOST_PENDING_BYTES", 2
    )  # rows that wait for their deletion count for nothing
    settings = settings.model_copy(update={"outbox_sweep_after": 600})
    async with connected(settings.database) as held, running_worker(settings):
        await held.execute(_DELETING_WAITS)
        await held.execute("SELECT pg_advisory_lock($1)", _DELETING)
        async with client(settings.broker) as agent:
            for _ in range(5):
                await agent.publish(logged())
                assert len((await agent.confirmed(1))["persisted"]) == 1
        assert await count(settings.database, "outbox") == 5
        await held.execute("SELECT pg_advisory_unlock($1)", _DELETING)

        async def deleted() -> bool:
            return await count(settings.database, "outbox") == 0

        await until(deleted)


_DELETING = 4711
_DELETING_WAITS = f"""
CREATE FUNCTION wait_for_the_test() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared({_DELETING});
    RETURN OLD;
END $$;
CREATE TRIGGER wait_for_the_test BEFORE DELETE ON outbox FOR EACH ROW EXECUTE FUNCTION wait_for_the_test()"""
