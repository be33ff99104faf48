"""What the broker dead-letters by itself reaches the table, whatever becomes of the dead-letter queue meanwhile."""

import asyncio
import json
from contextlib import asynccontextmanager
from urllib.parse import unquote, urlsplit

import aio_pika
import pytest
from support import queues
from support.broker import client, new_topology
from support.events import logged
from support.faults import by_way_of
from support.ledger import Ledger
from support.letters import replay, waiting
from support.proxy import proxy_before
from support.tables import rows
from support.verdicts import everything_is_accounted_for, queues_are_empty
from support.waiting import until
from support.workers import drain, running_worker

from contracts import registry
from worker.broker import topology
from worker.broker.connection import connect

QUEUE = "worker.execution-log"
LETTERS = "worker.execution-log.dead-letters"


@asynccontextmanager
async def policy(rabbitmq, settings, queue: str, **definition):
    """An operator's policy on one queue, as long as the block lasts."""
    host = ("-p", unquote(urlsplit(settings.broker).path[1:]))
    await asyncio.to_thread(
        rabbitmq.control,
        *(
            "set_policy",
            *host,
            "test",
            f"^{queue}$",
            json.dumps(definition),
            "--apply-to",
            "queues",
        ),
    )
    try:
        yield
    finally:
        await asyncio.to_thread(rabbitmq.control, "clear_policy", *host, "test")


@pytest.fixture
async def impatient(settings, rabbitmq):
    """A broker that offers again after a second, not after three minutes, what a dead-letter queue did not take."""
    setting = "application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, {})."
    await asyncio.to_thread(rabbitmq.control, "eval", setting.format(1000))
    await new_topology(settings.broker)  # a queue reads it when it is made
    yield
    await asyncio.to_thread(rabbitmq.control, "eval", setting.format(180_000))


async def publish_expiring(agent, ledger: Ledger, count: int) -> None:
    """Messages that expire before any worker takes them: each has to become a letter, whole."""
    for number in range(count):
        body = logged(step_number=number).to_json()
        await ledger.publish_bad(agent, body, "expired", "execution.logged", expiration=0.001)


async def apply_topology(settings) -> None:
    connection = await connect(settings.broker, name="test")
    try:
        await topology.apply(connection, topology.topology(registry.families().values()))
    finally:
        await connection.close()


@pytest.mark.usefixtures("impatient")
async def test_a_full_dead_letter_queue_loses_nothing(settings, rabbitmq):
    """It holds one message only, and refuses: what expires waits in its own queue until there is room."""
    ledger = Ledger()
    limits = {"max-length": 1, "overflow": "reject-publish"}
    async with (
        policy(rabbitmq, settings, LETTERS, **limits),
        client(settings.broker) as agent,
    ):
        await publish_expiring(agent, ledger, 12)
        await waiting(settings, LETTERS)
        async with running_worker(settings):
            await ledger.hear(agent)
    await everything_is_accounted_for(ledger, settings)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("gone", ["queue", "exchange"])
async def test_a_dead_letter_target_that_is_gone_loses_nothing(gone, settings):
    """Nothing is bound where expired messages go: they stay where they are until the topology is applied again."""
    ledger = Ledger()
    async with client(settings.broker) as agent:
        if gone == "queue":
            await queues.delete(settings.broker, LETTERS)
        else:
            async with await aio_pika.connect(settings.broker) as connection:
                await (await connection.channel()).exchange_delete(topology.DEAD_LETTERS)
        await publish_expiring(agent, ledger, 12)
        await until(
            lambda: _holds(settings, QUEUE, 0), 30
        )  # what has expired is not counted as ready
        await apply_topology(settings)
        await waiting(settings, LETTERS, 12)
        async with running_worker(settings):
            await ledger.hear(agent)
    await everything_is_accounted_for(ledger, settings)


async def _holds(settings, queue: str, count: int) -> bool:
    connection = await connect(settings.broker, name="test")
    try:
        return await topology.message_count(connection, queue) == count
    finally:
        await connection.close()


async def test_a_cycle_of_dead_letters_cannot_be(settings):
    """A message that has died in this queue before, and says so, dies there again as a whole letter."""
    ledger = Ledger()
    deaths = [{"count": 1, "reason": "expired", "queue": QUEUE, "exchange": "agent.messages"}]
    async with client(settings.broker) as agent:
        body = logged().to_json()
        await ledger.publish_bad(
            *(agent, body, "expired", "execution.logged"),
            expiration=0.001,
            headers={"x-death": deaths, "x-first-death-queue": QUEUE},
        )
        await waiting(settings, LETTERS)
        async with running_worker(settings):
            await ledger.hear(agent)
    await everything_is_accounted_for(ledger, settings)


async def test_a_delivery_limit_of_an_operators_policy_makes_letters(settings, rabbitmq):
    """A policy may lower the limit: what the broker then takes away is a whole letter, not deleted."""
    ledger = Ledger()
    async with (
        policy(rabbitmq, settings, QUEUE, **{"delivery-limit": 2}),
        client(settings.broker) as agent,
    ):
        for number in range(3):
            body = logged(step_number=number).to_json()
            await ledger.publish_bad(agent, body, "delivery_limit", "execution.logged")
        await lose_consumers(settings, QUEUE, times=6)
        await waiting(settings, LETTERS, 3)
        async with running_worker(settings):
            await ledger.hear(agent)
    await everything_is_accounted_for(ledger, settings)


async def lose_consumers(settings, queue: str, times: int) -> None:
    """Take everything from a queue and lose the channel, so many times."""
    async with await aio_pika.connect(settings.broker) as connection:
        for _ in range(times):
            channel = await connection.channel()
            source = await channel.get_queue(queue, ensure=False)
            while await source.get(fail=False) is not None:
                pass
            await channel.close()


@pytest.mark.parametrize("queue", [QUEUE, LETTERS])
async def test_connections_that_are_lost_again_and_again_dead_letter_nothing(queue, settings):
    """Thirty times, more than the default limit of RabbitMQ 4: messages and letters are where they were."""
    ledger = Ledger()
    async with client(settings.broker) as agent:
        if queue == QUEUE:
            await ledger.publish(agent, [logged() for _ in range(5)])
        else:
            await publish_expiring(agent, ledger, 5)
        await waiting(settings, queue, 5)
        await lose_consumers(settings, queue, times=30)
        async with running_worker(settings):
            await ledger.hear(agent)
    await everything_is_accounted_for(ledger, settings)


@pytest.fixture
async def impatient_queues(settings, monkeypatch):
    """Queues whose own timeout, which counts more than the broker's from 3.12 on, is not a day but half a second."""
    monkeypatch.setitem(topology._QUORUM, "x-consumer-timeout", 500)
    await new_topology(settings.broker)
    yield
    monkeypatch.undo()
    await new_topology(settings.broker)


@pytest.mark.usefixtures("impatient_queues")
async def test_an_acknowledgement_timeout_is_no_message_s_fault(settings, rabbitmq):
    """The broker takes away what is held for too long, while the database is away: nothing is a letter."""
    ledger = Ledger()
    set_env = "application:set_env(rabbit, {}, {})."
    tick, timeout = "channel_tick_interval", "consumer_timeout"
    try:
        for name, value in ((tick, 300), (timeout, 500)):
            await asyncio.to_thread(rabbitmq.control, "eval", set_env.format(name, value))
        async with (
            proxy_before(settings.database) as (proxy, url),
            client(settings.broker) as agent,
            running_worker(by_way_of(settings, database_url=url)) as worker,
        ):
            families = worker.app.attachment._subscriptions
            await proxy.refuse()
            await ledger.publish(agent, [logged() for _ in range(20)])
            taken_away = 0
            while taken_away < 3:
                first = await until(lambda: families.get("execution-log"))
                try:
                    async with asyncio.timeout(60):
                        await first.ended.wait()
                except TimeoutError:
                    break  # seen on 4.3, where queues cancel consumers: now and then one is forgotten
                await until(lambda first=first: families.get("execution-log") not in (None, first))
                taken_away += 1
            await proxy.heal()
            await ledger.hear(agent)
    finally:
        for name, value in zip((tick, timeout), (60_000, 1_800_000), strict=True):
            await asyncio.to_thread(rabbitmq.control, "eval", set_env.format(name, value))
    await everything_is_accounted_for(ledger, settings)
    if not taken_away and rabbitmq.version.startswith("4."):
        pytest.skip(f"RabbitMQ {rabbitmq.version} forgot the consumer, as 4.3 does now and then")
    assert taken_away


async def test_a_replay_survives_the_broker(settings, rabbitmq):
    """Replayed letters are persistent and confirmed: the broker is killed right after, and every one is resolved."""
    bodies = [logged(step_number=number).to_json() for number in range(10)]
    ledger = Ledger()
    async with client(settings.broker) as agent:
        for body in bodies:
            # No family is bound for this routing key; the type in the body is good.
            await ledger.publish_bad(agent, body, "unroutable", "nobody.knows")
        await drain(settings)
    done = await replay(settings, by_type=True)
    assert len(done.published) == len(bodies)
    await asyncio.to_thread(rabbitmq.control, "eval", "[dets:sync(T) || T <- dets:all()].")
    await asyncio.to_thread(rabbitmq.kill)
    await asyncio.to_thread(rabbitmq.start)
    await drain(settings)
    found = await rows(settings.database, "SELECT body, resolution FROM dead_letters")
    assert {row["body"]: row["resolution"] for row in found} == dict.fromkeys(bodies, "replayed")
    stored = await rows(settings.database, "SELECT event_id FROM execution_logs")
    assert len(stored) == len(bodies)


async def test_a_replay_repeats_no_property_that_copies_refuses_or_expires(settings):
    """A letter that came with CC, user_id and an expiration is stored once, by a replay that has none of them."""
    user = unquote(urlsplit(settings.broker).username or "")
    body = logged().to_json()
    properties = {"user_id": user, "expiration": 3600, "headers": {"CC": ["nobody.either"]}}
    async with client(settings.broker) as agent:
        await agent.publish(body, routing_key="nobody.knows", **properties)
        await drain(settings)
        done = await replay(settings, by_type=True)
        assert (len(done.published), done.failures) == (1, {})
        await drain(settings)
    found = await rows(settings.database, "SELECT reason, resolution FROM dead_letters")
    assert found == [{"reason": "unroutable", "resolution": "replayed"}]
    assert len(await rows(settings.database, "SELECT event_id FROM execution_logs")) == 1
    await queues_are_empty(settings.broker)
