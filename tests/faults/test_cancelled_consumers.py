"""Consumers that the broker ends: readiness says so, and what the worker had in hand goes back and is taken again."""

import asyncio
import socket

import pytest
from support import queues
from support.broker import client, new_topology
from support.events import logged
from support.ledger import Ledger
from support.letters import undeployed
from support.verdicts import everything_is_accounted_for
from support.waiting import until
from support.workers import running_worker

from contracts import registry
from worker.broker import topology
from worker.broker.connection import connect


@pytest.fixture
def serving(settings):
    """Settings with a port for /readyz."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return settings.model_copy(update={"http_port": taken.getsockname()[1]})


async def ready(settings) -> bool:
    """Whether /readyz says so; its status is 503 wherever it does not."""
    reader, writer = await asyncio.open_connection(settings.http_host, settings.http_port)
    writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
    answer = await reader.read()
    writer.close()
    status = int(answer.split()[1])
    assert status in (200, 503)
    return status == 200


async def test_readiness_proves_attachment(serving):
    """503 as long as the queue is gone, 200 once it is there again, and then messages are stored."""
    ledger = Ledger()
    async with client(serving.broker) as agent, running_worker(serving):

        async def unready() -> bool:
            return not await ready(serving)

        await until(lambda: ready(serving))
        await queues.delete(serving.broker, "worker.execution-log")
        await until(unready)
        connection = await connect(serving.broker, name="test")
        await topology.apply(connection, topology.topology(registry.families().values()))
        await connection.close()
        await until(lambda: ready(serving))
        await ledger.publish(agent, [logged() for _ in range(20)])
        await ledger.hear(agent)
    await everything_is_accounted_for(ledger, serving)


async def test_a_cancelled_consumer_takes_no_message_of_another_queue_with_it(settings):
    """One queue of several on a channel is deleted: what came from the others goes back and is handled."""
    ledger = Ledger()
    name = topology.dead_letter_queue_name
    async with client(settings.broker) as agent, running_worker(settings) as worker:
        subscription = worker.app.attachment._subscriptions[topology.DEAD_LETTER_FAMILY]
        held = asyncio.Event()
        pipeline = worker.app.attachment._pipelines[topology.DEAD_LETTER_FAMILY]
        persist = pipeline._persister.persist

        async def waits_for_the_end(decoded):
            held.set()
            await subscription.ended.wait()
            pipeline._persister.persist = persist
            return await persist(decoded)

        pipeline._persister.persist = waits_for_the_end
        for number in range(5):
            body = logged(step_number=number).to_json()
            channel = agent.channel
            exchange = await channel.get_exchange(topology.DEAD_LETTERS, ensure=False)
            await exchange.publish(_message(body), "execution-log")
            ledger.expect_letter(body, "dead_lettered")
            if number == 0:
                await held.wait()
        await until(lambda: subscription.in_hand == 5)
        await queues.delete(settings.broker, name("trajectory"))
        await subscription.ended.wait()
        connection = await connect(settings.broker, name="test")
        await topology.apply(connection, topology.topology(registry.families().values()))
        await connection.close()
        await ledger.hear(agent)
        await worker.attached()
    await everything_is_accounted_for(ledger, settings)


def _message(body: bytes):
    import aio_pika

    return aio_pika.Message(body, delivery_mode=2)


async def test_everything_deleted_and_made_anew_while_messages_flow(settings):
    """Queues and exchanges are made anew three times: what is published afterwards lands, every time."""
    ledger = Ledger()
    async with running_worker(settings) as worker:
        for _ in range(3):
            await new_topology(settings.broker)
            async with client(settings.broker) as agent:
                await ledger.publish(agent, [logged() for _ in range(10)])
                await ledger.hear(agent)
            await worker.attached()
    await everything_is_accounted_for(ledger, settings)


async def test_a_queue_that_is_unbound_sends_its_messages_to_the_unrouted(settings):
    """A family that is not deployed makes letters that say so, and no message vanishes."""
    ledger = Ledger()
    async with client(settings.broker) as agent, running_worker(settings):
        async with undeployed(settings, "execution-log"):
            body = logged().to_json()
            await ledger.publish_bad(agent, body, "unroutable", "execution.logged")
            await ledger.hear(agent)
        await ledger.publish(agent, [logged()])
        await ledger.hear(agent)
    await everything_is_accounted_for(ledger, settings)
