"""A confirmation that the broker did not take stays in the outbox; one that it took waits for nobody's deletion."""

import aio_pika
from support.broker import client
from support.events import logged
from support.tables import connected, count
from support.waiting import until
from support.workers import running_worker

from worker import relay, telemetry
from worker.broker import topology
from worker.broker.connection import connect
from worker.operations.services import whole_topology


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


async def test_no_confirmation_waits_for_the_deletion_of_anothers_row(settings, monkeypatch):
    """While one row cannot be deleted the others are confirmed all the same, however many, and all rows go in the end."""
    monkeypatch.setattr(
        relay, "_MOST_PENDING_ITEMS", 2
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
