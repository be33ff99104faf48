"""A confirmation that the broker did not take stays in the outbox."""

import aio_pika
from support.broker import client
from support.events import logged
from support.tables import count
from support.waiting import until
from support.workers import running_worker

from worker import telemetry
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
