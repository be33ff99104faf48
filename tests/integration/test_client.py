"""The client against a real RabbitMQ, with a stand-in for the worker that answers in the wire's form."""

import asyncio
import contextlib
import itertools
import json
import logging
import os
from collections import defaultdict

import aio_pika
import pytest
from support.waiting import until

from contracts import PersistenceConfirmed, uuid7
from contracts.client import (
    NotAccepted,
    NotConfirmed,
    NotConnected,
    Publisher,
    Rejected,
    Unanswered,
    Unroutable,
)
from contracts.confirmation import EXCHANGE as CONFIRMATIONS
from contracts.envelope import CONTENT_TYPE, CONTENT_TYPE_BATCH, Event
from contracts.execution_log import ExecutionLogged
from contracts.publishing import dispatch
from contracts.task_lifecycle import TaskCreated

QUORUM = {"x-queue-type": "quorum"}
_numbers = itertools.count()


class StandIn:
    """Declares what the client needs, keeps what it receives, and answers as `judge` says (None: not at all)."""

    def __init__(self, url):
        self.url = url
        self.messages = []
        self.seen = set()
        self.judge = self.store
        self.per_reply = 10_000
        self.connection = None

    def store(self, event):
        outcome = "duplicate" if event["id"] in self.seen else "persisted"
        self.seen.add(event["id"])
        return {"outcome": outcome}

    @property
    def events(self):
        return [event for _, events in self.messages for event in events]

    async def declare(self):
        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            await channel.declare_exchange("agent.unrouted", "fanout", durable=True)
            await channel.declare_exchange(
                "agent.messages",
                "topic",
                durable=True,
                arguments={"alternate-exchange": "agent.unrouted"},
            )
            await channel.declare_exchange(CONFIRMATIONS, "topic", durable=True)
            for name, exchange, key in (
                ("worker.execution-log", "agent.messages", "execution.#"),
                ("worker.task-lifecycle", "agent.messages", "task.#"),
                ("worker.unrouted", "agent.unrouted", ""),
            ):
                queue = await channel.declare_queue(name, durable=True, arguments=QUORUM)
                await queue.bind(exchange, key)

    async def start(self):
        self.connection = await aio_pika.connect(self.url)
        channel = await self.connection.channel()
        await channel.set_qos(200)
        self.exchange = channel.default_exchange
        for name in ("worker.execution-log", "worker.task-lifecycle", "worker.unrouted"):
            queue = await channel.get_queue(name, ensure=False)
            await queue.consume(self.take)

    async def take(self, message):
        body = json.loads(message.body)
        events = body if isinstance(body, list) else [body]
        self.messages.append((message, events))
        answers = defaultdict(list)
        for event in events:
            verdict = self.judge(event)
            if verdict is not None:
                item = {key: event[key] for key in ("id", "type", "source")} | {"key": event["id"]}
                answers[verdict["outcome"]].append({**item, **verdict})
        if message.reply_to:
            for outcome, items in answers.items():
                for at in range(0, len(items), self.per_reply):
                    await self.reply(message, outcome, items[at : at + self.per_reply])
        await message.ack()

    async def reply(self, message, outcome, items):
        data = {
            "family": "execution-log",
            "outcome": outcome,
            "tenant": "default",
            "worker": "stand-in",
            "committed_at": "2026-11-21T20:10:04.763Z",
            "items": items,
        }
        event = PersistenceConfirmed.model_validate(data).event(source="/workers/stand-in")
        reply = aio_pika.Message(event.to_json(), correlation_id=message.correlation_id)
        await self.exchange.publish(reply, message.reply_to, mandatory=False)

    async def stop(self):
        if self.connection is not None:
            with contextlib.suppress(*aio_pika.exceptions.CONNECTION_EXCEPTIONS):
                await self.connection.close()


@pytest.fixture
def virtual_host(rabbitmq):
    """A virtual host of this test alone: its connections can be cut without cutting another's."""
    name = f"client_{os.getpid()}_{next(_numbers)}"
    yield name, rabbitmq.create(name)
    rabbitmq.drop(name)


@pytest.fixture
def url(virtual_host):
    return virtual_host[1]


@pytest.fixture
async def worker(url):
    """The stand-in, declared and running."""
    stand_in = StandIn(url)
    await stand_in.declare()
    await stand_in.start()
    yield stand_in
    await stand_in.stop()


@pytest.fixture
def quick(monkeypatch):
    """Back-off in milliseconds where a test waits for its end."""
    original = dispatch.delay
    monkeypatch.setattr(dispatch, "delay", lambda failures: original(failures) / 20)


@pytest.fixture
def cut(rabbitmq, virtual_host):
    """Close every connection of this test's virtual host from the broker's side."""

    async def close():
        arguments = ("close_all_connections", "--vhost", virtual_host[0], "cut by a test")
        await asyncio.to_thread(rabbitmq.control, *arguments)

    return close


def publisher(url, **options):
    return Publisher(url, **{"source": "/agents/infra-1", "timeout": 20.0, **options})


def logged(**changes):
    members = {"step_number": 1, "agent_type": "infra", "action": "apply", "status": "completed"}
    contract = ExecutionLogged(task_id=uuid7(), **{**members, **changes})
    return contract.event(source="/agents/infra-1")


async def test_a_message_is_what_the_wire_says(url, worker):
    """Routing key, persistence, content type, a fresh message id each time, and a way to answer."""
    async with publisher(url) as p:
        event = logged()
        assert await p.persisted(event) == "persisted"
        assert await p.persisted(event) == "duplicate"
    first, second = (message for message, _ in worker.messages)
    number = {"sequence": "1", "epoch": str(p.epoch)}
    assert json.loads(first.body) == json.loads(event.to_json()) | number
    assert first.body == second.body
    assert first.exchange == "agent.messages"
    assert first.routing_key == "execution.logged"
    assert first.delivery_mode == 2
    assert first.content_type == CONTENT_TYPE
    assert first.correlation_id == str(event.id)
    assert first.reply_to.startswith("amq.rabbitmq.reply-to")
    assert first.message_id != second.message_id


async def test_publish_needs_no_worker(url):
    """The broker has it: a worker that starts later finds it."""
    stand_in = StandIn(url)
    await stand_in.declare()
    async with publisher(url) as p:
        event = logged()
        await p.publish(event)
        with pytest.raises(Unanswered, match="is a worker running"):
            await p.persisted(event, timeout=0.3)
        await stand_in.start()
        assert (
            await p.persisted(event) == "duplicate"
        )  # the one that timed out was stored meanwhile
    await stand_in.stop()
    assert {event["id"] for event in stand_in.events} == {str(event.id)}


async def test_a_rejection_reaches_its_publisher(url, worker):
    """Reason and errors come back as an exception with a remedy."""
    errors = [{"loc": ["data", "action"], "msg": "refused", "type": "x"}]
    worker.judge = lambda event: {"outcome": "rejected", "reason": "unstorable", "errors": errors}
    async with publisher(url) as p:
        with pytest.raises(Rejected, match=r"data\.action: refused") as caught:
            await p.persisted(logged())
    assert caught.value.reason == "unstorable"


async def test_what_no_queue_takes_does_not_vanish(url, worker):
    """The alternate exchange catches it, and its publisher is told."""
    worker.judge = lambda event: {"outcome": "rejected", "reason": "unroutable", "errors": []}
    lost = Event(source="/agents/infra-1", type="tusk.created", data={})
    async with publisher(url, validate=False) as p:
        with pytest.raises(Rejected, match="worker topology apply"):
            await p.persisted(lost)
    assert worker.messages[0][0].routing_key == "tusk.created"


async def test_batches_carry_many_events_in_few_messages(url, worker):
    """Each event has its own outcome, though a reply holds many and a message gets several."""
    worker.per_reply = 7
    known = [logged(step_number=n) for n in range(100)]
    worker.seen = {str(event.id) for event in known}
    fresh = [logged(step_number=n) for n in range(400)]
    bad = [logged(action="bad") for _ in range(10)]

    def judge(event):
        if event["data"].get("action") == "bad":
            return {"outcome": "rejected", "reason": "conflict", "errors": []}
        return worker.store(event)

    worker.judge = judge
    async with publisher(url, batch=True, max_batch_events=200) as p:
        task = p.event(TaskCreated(task_id=uuid7(), request_text="x"))
        calls = [p.persisted(event) for event in (*known, *fresh, *bad, task)]
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert results[:100] == ["duplicate"] * 100
    assert results[100:500] == ["persisted"] * 400
    assert {type(result) for result in results[500:510]} == {Rejected}
    assert results[510] == "persisted"
    assert len(worker.messages) <= 5
    assert {message.content_type for message, events in worker.messages if len(events) > 1} == {
        CONTENT_TYPE_BATCH
    }


@pytest.mark.parametrize("batch", [False, True])
async def test_cut_connections_lose_nothing(url, worker, cut, quick, batch):
    """The broker closes every connection, again and again: every event is stored, every caller learns it."""
    events = [logged(step_number=n) for n in range(600)]
    worker.judge = lambda event: worker.store(event) and None  # stored, and the answer lost
    options = {"batch": batch, "max_batch_events": 20, "max_unanswered": 100, "timeout": 90}
    async with publisher(
        url, **options
    ) as p:  # each cut is a rabbitmqctl, of seconds on a busy machine
        calls = asyncio.gather(*map(p.persisted, events))
        for _ in range(3):
            stored = len(worker.seen)
            await until(lambda: len(worker.seen) > stored or calls.done())  # noqa: B023 (awaited here)
            await cut()
            worker.judge = worker.store
            await worker.stop()
            await worker.start()
        results = await calls
    assert set(results) <= {"persisted", "duplicate"}
    assert "duplicate" in results  # at least the first were asked again
    assert worker.seen == {str(event.id) for event in events}


@pytest.mark.slow
async def test_a_publisher_survives_a_restart_of_the_broker(url, rabbitmq, quick):
    """What was confirmed before, while and after the broker restarted is all in the queue."""
    if not rabbitmq.owned:
        pytest.skip("this broker is not ours to restart")
    stand_in = StandIn(url)
    await stand_in.declare()
    confirmed = []
    stop = asyncio.Event()

    async def agent(p):
        while not stop.is_set():
            event = logged()
            await p.publish(event, timeout=60)
            confirmed.append(str(event.id))

    async with publisher(url) as p:
        agents = [asyncio.ensure_future(agent(p)) for _ in range(5)]
        await until(lambda: len(confirmed) >= 20)
        await asyncio.to_thread(rabbitmq.restart)
        before = len(confirmed)
        await until(lambda: len(confirmed) >= before + 20)
        stop.set()
        await asyncio.gather(*agents)
    await stand_in.start()
    await until(lambda: set(confirmed) <= stand_in.seen)
    await stand_in.stop()


async def test_a_broker_without_memory_holds_publishers_back(url, worker, rabbitmq):
    """Under an alarm the broker confirms nothing: the call ends in time, and the event arrives once it is over."""
    if not rabbitmq.owned:
        pytest.skip("this broker is not ours to choke")
    async with publisher(url) as p:
        await p.publish(logged())
        event = logged()
        await asyncio.to_thread(rabbitmq.control, "set_vm_memory_high_watermark", "0.0000001")
        try:
            with pytest.raises(NotConfirmed):
                await p.publish(event, timeout=1)
        finally:
            await asyncio.to_thread(rabbitmq.control, "set_vm_memory_high_watermark", "0.4")
        assert await p.persisted(event) == "persisted"


async def test_a_broker_that_says_no_is_asked_again_and_then_believed(url, quick):
    """A full queue that refuses is a nack: tried again, then told to the caller."""
    stand_in = StandIn(url)
    await stand_in.declare()
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        full = await channel.declare_queue(
            "full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
        )
        await full.bind("agent.messages", "execution.#")
        async with publisher(url) as p:
            await p.publish(logged())
            with pytest.raises(NotAccepted, match="refused"):
                await p.publish(logged())
            waiting = asyncio.ensure_future(p.publish(logged()))
            await full.purge()
            await waiting


async def test_who_may_not_publish_is_told(url, virtual_host, worker, rabbitmq, quick):
    """No permission is an error that names the reason, and the neighbours' connection mends itself."""
    user = f"reader_{next(_numbers)}"
    control = rabbitmq.control
    await asyncio.to_thread(control, "add_user", user, "s3cret-of-reader")
    try:
        await asyncio.to_thread(
            control, "set_permissions", "-p", virtual_host[0], user, "", "", ".*"
        )
        scheme, _, rest = url.partition("://")
        own = f"{scheme}://{user}:s3cret-of-reader@{rest.partition('@')[2]}"
        async with publisher(own) as p:
            with pytest.raises(NotAccepted, match="ACCESS_REFUSED") as caught:
                await p.publish(logged())
        assert "s3cret-of-reader" not in repr(caught.value)
    finally:
        await asyncio.to_thread(control, "delete_user", user)


async def test_what_amqp_cannot_carry_fails_alone(url, worker):
    """A type of more than 255 bytes has no place in a frame; the connection is none the worse for it."""
    async with publisher(url, validate=False) as p:
        with pytest.raises(NotAccepted, match="cannot be sent"):
            await p.publish(Event(source="/agents/infra-1", type="é" * 200, data={}))
        assert await p.persisted(logged()) == "persisted"


async def test_a_missing_exchange_is_named_at_once(url):
    """Nothing was set up: the error says which command does."""
    async with asyncio.timeout(5):
        with pytest.raises(Unroutable, match="worker topology apply"):
            await publisher(url).__aenter__()


async def test_an_exchange_that_goes_away_is_named_in_time(url, worker, quick):
    """A topology that is removed under a running publisher."""
    async with publisher(url, timeout=2.0) as p:
        await p.publish(logged())
        async with await aio_pika.connect(url) as connection:
            await (await connection.channel()).exchange_delete("agent.messages")
        with pytest.raises(Unroutable, match=r"agent\.messages"):
            await p.publish(logged())
        await worker.declare()
        assert await p.persisted(logged(), timeout=20) == "persisted"


@pytest.mark.parametrize("wrong", ["password", "virtual host", "port"])
async def test_no_connection_says_why_and_keeps_secrets(url, wrong, caplog):
    """What can be mended is named; the password is in no text and no log."""
    head, _, host = url.partition("@")
    scheme, _, login = head.partition("://")
    user, _, password = login.partition(":")
    bad = {
        "password": f"{scheme}://{user}:wrong-s3cret@{host}",
        "virtual host": f"{url}-none",
        "port": f"{scheme}://{user}:{password}@127.0.0.1:1/x",
    }[wrong]
    with caplog.at_level(logging.DEBUG), pytest.raises(NotConnected) as caught:
        await publisher(bad, timeout=1).__aenter__()
    text = {"password": "ACCESS_REFUSED", "virtual host": "virtual host", "port": "127.0.0.1:1"}
    assert text[wrong] in str(caught.value)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("contracts")]
    for secret in ("wrong-s3cret", password):
        assert secret not in f"{caught.value!r} {caught.value.__context__!r} {ours}"


@pytest.mark.parametrize("text", ["", "localhost", "http://u:s3cret@h/", "amqp://u:s3cret@h:x/"])
def test_a_url_that_is_none_is_refused_without_repeating_it(text):
    """A mistyped URL holds a password all the same."""
    with pytest.raises(ValueError, match="must look like amqp://") as caught:
        Publisher(text)
    assert "s3cret" not in str(caught.value)
