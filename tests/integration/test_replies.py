"""Direct replies: asked for by reply_to, honoured where they may go, harmless where they may not."""

import aio_pika
from support.broker import client
from support.events import logged
from support.tables import count
from support.workers import running_worker

from worker import telemetry

# A name of the broker's own form whose content is no process: RabbitMQ 3.10 closes the connection over it, 4.3 drops it.
POISON = "amq.rabbitmq.reply-to.g2dkABByYWJiaXRAaG9zdAAAAAAAAAAAAAA=.abc"


def value(counter, *labels: str) -> float:
    return (counter.labels(*labels) if labels else counter)._value.get()


async def breaks_the_connection(url: str, routing_key: str) -> bool:
    """Whether this version of the broker closes the connection over a publish to that address."""
    connection = await aio_pika.connect(url)
    try:
        channel = await connection.channel()
        await channel.default_exchange.publish(aio_pika.Message(b""), routing_key, mandatory=False)
    except aio_pika.exceptions.CONNECTION_EXCEPTIONS:
        return True
    finally:
        await connection.close()
    return False


async def test_a_direct_reply_carries_the_correlation_id_or_else_the_events_id(settings, worker):
    """A publisher can wait for its write."""
    named, unnamed = logged(), logged()
    async with client(settings.broker) as agent:
        await agent.publish(named, reply=True, correlation_id="mine")
        await agent.publish(unnamed, reply=True)
        replies = {(await agent.reply()).correlation_id for _ in range(2)}
    assert replies == {"mine", str(unnamed.id)}


async def test_a_batchs_reply_holds_all_its_items_of_one_outcome(settings, worker):
    """One reply for what was stored, one for what was there before, one for what was refused."""
    before = logged()
    bad = logged().to_json().replace(b'"step_number":1', b'"step_number":-1')
    async with client(settings.broker) as agent:
        await agent.publish(before)
        await agent.confirmed(1)
        events = [logged(), before, bad, logged()]
        await agent.publish_batch(events, "execution.logged", reply=True, correlation_id="batch")
        replies = [await agent.reply() for _ in range(3)]
    assert {reply.correlation_id for reply in replies} == {"batch"}
    assert {reply.outcome: len(reply.items) for reply in replies} == {
        "persisted": 2,
        "duplicate": 1,
        "rejected": 1,
    }


async def test_replies_go_to_queues_of_the_allowed_name_and_to_no_other(settings, worker):
    """Nobody can make the worker write into a queue of the publisher's choosing."""
    ignored = value(telemetry.replies_ignored, "execution-log")
    async with client(settings.broker) as agent:
        allowed = await agent.channel.declare_queue("agent.replies.tester", auto_delete=True)
        forbidden = await agent.channel.declare_queue("somebody.elses", auto_delete=True)
        for queue in (allowed, forbidden):
            await agent.exchange.publish(
                aio_pika.Message(logged().to_json(), reply_to=queue.name), "execution.logged"
            )
        await agent.confirmed(2)
        await worker.app.relay.idle()
        assert (await allowed.get(timeout=10)) is not None
        assert (await forbidden.get(fail=False)) is None
        await allowed.delete(if_unused=False, if_empty=False)
        await forbidden.delete(if_unused=False, if_empty=False)
    assert value(telemetry.replies_ignored, "execution-log") == ignored + 1


async def test_an_address_that_breaks_the_connection_keeps_nobody_from_their_confirmation(settings):
    """Its own reply is given up after two connections; the event and everybody else's replies arrive."""
    given_up = value(telemetry.replies_given_up)
    breaks = await breaks_the_connection(settings.broker, POISON)
    async with client(settings.broker) as agent:
        for _ in range(3):
            await agent.publish(logged(), reply=True)
        await agent.exchange.publish(
            aio_pika.Message(logged().to_json(), reply_to=POISON), "execution.logged"
        )
        await agent.publish(logged(), reply=True)
        async with running_worker(settings) as worker:
            seen = {item["id"] for item in (await agent.confirmed(5))["persisted"]}
            while len(seen) < 5:
                seen |= {item["id"] for item in (await agent.confirmed(1))["persisted"]}
            answered = set()
            while len(answered) < 4:
                answered.add((await agent.reply()).correlation_id)
            await worker.app.relay.idle()
    assert value(telemetry.replies_given_up) == given_up + breaks
    assert await count(settings.database, "outbox") == 0
