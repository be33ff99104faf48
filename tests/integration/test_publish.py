"""Events from a file: all of them are published, and all of them are accounted for."""

import asyncio
import io
import json
import os

import aio_pika
import pytest
from support.broker import client
from support.events import created, logged
from support.letters import letters, waiting
from support.tables import count
from support.waiting import until
from support.workers import drain

from worker.broker import topology
from worker.broker.outgoing import Fate, Outgoing
from worker.broker.sender import Sender
from worker.errors import Misconfigured, Unavailable
from worker.publishing.lines import lines_of
from worker.publishing.published import Published
from worker.publishing.publishing import Publishing

QUEUE = "worker.execution-log"


def jsonl(*lines) -> bytes:
    return b"\n".join(line if isinstance(line, bytes) else line.to_json() for line in lines)


async def publish(settings, text: bytes, **options) -> Published:
    async with Publishing(settings.broker, name="test", **options) as publishing:
        return await publishing.run(lines_of(io.BytesIO(text)))


async def in_queue(settings, queue: str = QUEUE) -> int:
    async with await aio_pika.connect(settings.broker) as connection:
        channel = await connection.channel()
        return (await channel.declare_queue(queue, passive=True)).declaration_result.message_count


async def test_every_line_is_a_persistent_message_routed_by_its_type(settings):
    """With publisher confirms, and a message id of its own."""
    events = [created(), *(logged() for _ in range(20))]
    done = await publish(settings, jsonl(*events))
    assert (done.lines, done.events, done.accepted, done.problems) == (21, 21, 21, [])
    assert await in_queue(settings, "worker.task-lifecycle") == 1
    async with await aio_pika.connect(settings.broker) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue(QUEUE, ensure=False)
        message = await queue.get()
        assert message.body == events[1].to_json()
        assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
        assert message.content_type == "application/cloudevents+json"
        assert message.message_id
        await message.nack(requeue=True)
    await drain(settings)
    assert await count(settings.database, "execution_logs") == 20


UNREADABLE = [b"hello", b"{", b"[]", b"1", b'{"a": 1}', b'{"type": 1}', b"\xff", b"[{}]"]
LONG_TYPE = b'{"type": "execution.' + b"x" * 250 + b'"}'
HALF_SURROGATE = b'{"type": "\\ud800"}'


async def test_lines_that_cannot_be_routed_are_named_and_hide_none(settings):
    """Each by its number; blank lines and line ends are nobody's fault."""
    bad = [*UNREADABLE, LONG_TYPE, HALF_SURROGATE]
    lines = [
        line for pair in zip(bad, [logged().to_json() for _ in bad], strict=True) for line in pair
    ]
    done = await publish(settings, b"\xef\xbb\xbf\r\n" + b"\r\n\r\n".join(lines))
    assert (done.lines, done.bad_lines, done.accepted) == (2 * len(bad), len(bad), len(bad))
    assert [problem.line for problem in done.problems] == [2 + 4 * at for at in range(len(bad))]


UNDECODABLE = {
    "NaN": b'{"type": "execution.logged", "data": NaN}',
    "1e400": b'{"type": "execution.logged", "data": 1e400}',
    "half a surrogate pair": b'{"type": "execution.logged", "data": "\\udfff"}',
    "5,000 digits": b'{"type": "execution.logged", "data": ' + b"9" * 5000 + b"}",
    "depth 100,000": b'{"a": [{"type": 1}], "b": ' + b"[" * 100_000 + b"]" * 100_000
    + b', "type": "execution.logged"}',
}  # fmt: skip


@pytest.mark.parametrize("batch", [1, 50])
async def test_what_a_worker_will_reject_is_published_beside_what_it_will_store(
    settings, worker, batch
):
    """It is the worker that says so, with a dead letter and a reason; in a batch, too, none harms another."""
    nested = json.loads(logged().to_json())
    for _ in range(70):
        nested = {"type": "execution.logged", "data": nested}
    invalid = b'{"type": "execution.logged"}'
    unknown = b'{"type": "execution.unknown", "id": "x"}'
    unrouted = b'{"type": "no.such.type"}'
    odd = [*UNDECODABLE.values(), json.dumps(nested).encode(), invalid, unknown, unrouted]
    lines = [line for one in odd for line in (logged(), one)]
    done = await publish(settings, jsonl(*lines), wait=True, batch=batch, patience=30)
    assert done.outcomes == {"persisted": len(odd), "rejected": len(odd)}
    undecodable = len(UNDECODABLE) + 1
    assert done.reasons == {"undecodable": undecodable, "invalid": 2, "unroutable": 1}
    assert {problem.line for problem in done.problems} == set(range(2, 2 * len(odd) + 1, 2))
    assert done.unanswered == 0
    assert await count(settings.database, "execution_logs") == len(odd)
    assert await count(settings.database, "dead_letters") == len(odd)


async def test_waiting_counts_every_event_once(settings, worker):
    """Persisted, duplicate and rejected, of single messages, batches, and lines that are a batch themselves."""
    known = [logged() for _ in range(5)]
    first = await publish(settings, jsonl(*known), wait=True)
    assert first.outcomes == {"persisted": 5}
    own_batch = b"[" + b",".join(event.to_json() for event in (logged(), known[0])) + b"]"
    broken_batch = b"[" + logged().to_json() + b', {"type": "execution.logged", "data": NaN}]'
    text = jsonl(*known, *(logged() for _ in range(95)), created(), own_batch, broken_batch)
    done = await publish(settings, text, wait=True, batch=30)
    assert done.outcomes == {"persisted": 97, "duplicate": 6, "rejected": 2}
    assert (done.lines, done.events, done.accepted, done.unanswered) == (103, 105, 105, 0)


async def test_batches_hold_one_family_and_at_most_so_many(settings):
    """Types of one family travel together; what is left over goes at the end."""
    events = [one for _ in range(25) for one in (logged(), created())]
    done = await publish(settings, jsonl(*events), batch=10)
    assert (done.events, done.accepted) == (50, 50)
    assert await in_queue(settings) == await in_queue(settings, "worker.task-lifecycle") == 3
    await drain(settings)
    assert await count(settings.database, "execution_logs") == 25
    assert await count(settings.database, "tasks") == 50  # of which 25 are only named by logs


async def test_waiting_ends_when_nobody_answers(settings):
    """The broker has the events, no worker runs: told, and not waited for for ever."""
    done = await publish(settings, jsonl(*(logged() for _ in range(3))), wait=True, patience=0.3)
    assert (done.accepted, done.unanswered, done.outcomes) == (3, 3, {})
    assert await in_queue(settings) == 3


async def test_publishing_without_the_exchange_says_what_to_do(settings):
    async with await aio_pika.connect(settings.broker) as connection:
        await (await connection.channel()).exchange_delete(topology.MESSAGES)
    with pytest.raises(Misconfigured, match="worker topology apply"):
        await publish(settings, jsonl(logged()))


async def test_events_that_no_queue_takes_are_not_taken_for_published(settings):
    """The broker acknowledges what it drops; only the mandatory flag tells."""
    async with await aio_pika.connect(settings.broker) as connection:
        await (await connection.channel()).queue_delete("worker.unrouted")
    done = await publish(settings, jsonl(logged(), b'{"type": "no.such.type"}'))
    assert (done.accepted, done.not_accepted) == (1, 1)
    assert done.problems[0].line == 2
    assert "no queue took it" in done.problems[0].why


async def test_a_lost_connection_costs_neither_events_nor_answers(settings, worker):
    """What was under way is sent again: stored once, answered."""
    events = [logged() for _ in range(400)]

    async with Publishing(settings.broker, name="test", wait=True, patience=30) as publishing:

        async def lines():
            for number, event in enumerate(events, 1):
                if number % 150 == 0:
                    publishing._sender.connection._writer.transport.abort()
                yield number, event.to_json()

        done = await publishing.run(lines())
    assert done.outcomes["persisted"] + done.outcomes["duplicate"] == 400
    assert done.unanswered == 0
    assert await count(settings.database, "execution_logs") == 400


async def test_a_pipe_is_read_while_it_is_written(settings, worker):
    """Events are published as they come, not at the end of the input."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe:
        async with Publishing(settings.broker, name="test", wait=True) as publishing:
            running = asyncio.create_task(publishing.run(lines_of(pipe)))
            event = logged().to_json()
            os.write(writing, event[:10])
            os.write(writing, event[10:] + b"\n")

            async def stored() -> bool:
                return await count(settings.database, "execution_logs") == 1

            await until(stored)
            assert not running.done()
            os.write(writing, logged().to_json())  # without an end of line
            os.close(writing)
            done = await running
    assert done.outcomes == {"persisted": 2}


# --- the sender below it ---


@pytest.fixture
def fates():
    return {}


def sender(settings, fates, **options) -> Sender:
    def on_fate(item: Outgoing) -> None:
        fates[item.body] = (item.fate, item.why)

    return Sender(settings.broker, name="test", on_fate=on_fate, **options)


async def test_messages_that_close_the_channel_are_found_and_take_no_other_with_them(
    settings, fates
):
    """Each has its fate, whatever was under way beside it."""
    async with sender(settings, fates) as sending:
        for number in range(100):
            body = b"%d" % number
            exchange = {30: "no.such.exchange", 60: "no.such.either"}.get(number, topology.MESSAGES)
            key = {80: "x" * 300}.get(number, "execution.logged")
            assert await sending.send(Outgoing(exchange, key, body))
        assert await sending.finish()
    refused = {body: why for body, (fate, why) in fates.items() if fate is Fate.REFUSED}
    assert refused.keys() == {b"30", b"60", b"80"}
    assert "no.such.exchange" in refused[b"30"]
    assert "255" in refused[b"80"]
    assert sum(fate is Fate.ACCEPTED for fate, _ in fates.values()) == 97
    assert await in_queue(settings) >= 97


async def test_a_full_queue_refuses_and_is_asked_again(settings, fates):
    """A nack is not for ever: what is refused is sent again, and told only after several times."""
    async with await aio_pika.connect(settings.broker) as connection:
        channel = await connection.channel()
        full = {"x-max-length": 1, "x-overflow": "reject-publish"}
        queue = await channel.declare_queue("test.full", arguments=full, durable=True)
        async with sender(settings, fates) as sending:
            await sending.send(Outgoing("", "test.full", b"first"))
            await sending.send(Outgoing("", "test.full", b"second"))
            finishing = asyncio.create_task(sending.finish())
            await waiting(settings, "test.full")

            async def was_refused() -> bool:
                return any(item.refusals for item in sending.unfinished)

            await until(was_refused)
            await queue.purge()
            assert await finishing
        assert {fate for fate, _ in fates.values()} == {Fate.ACCEPTED}
        await channel.queue_delete("test.full")


async def test_a_broker_that_stays_away_is_unavailable(settings, fates, monkeypatch):
    """After `patience` seconds, with what has no fate still known."""
    async with sender(settings, fates, patience=0.5) as sending:
        sending._url = "amqp://127.0.0.1:1"
        await sending.send(Outgoing(topology.MESSAGES, "execution.logged", b"1"))
        sending.connection._writer.transport.abort()
        with pytest.raises(Unavailable):
            await sending.finish()
        assert [item.body for item in sending.unfinished] == [b"1"]


async def test_a_broker_that_confirms_nothing_is_unavailable(settings, fates, sandbox):
    """Blocked by an alarm, it takes what is sent and says nothing."""
    async with sender(settings, fates, patience=0.5) as sending:
        sandbox.rabbitmq.control("set_vm_memory_high_watermark", "0.000001")
        try:
            await sending.send(Outgoing(topology.MESSAGES, "execution.logged", b"1"))
            with pytest.raises(Unavailable, match="memory or disk"):
                await sending.finish()
        finally:
            sandbox.rabbitmq.control("set_vm_memory_high_watermark", "0.6")


async def test_rejected_lines_become_letters_with_their_whole_body(settings, worker):
    """The line as it stood in the file."""
    line = b'{"type": "execution.logged",   "data": {"a":1.50} }'
    await publish(settings, line, wait=True)
    async with client(settings.broker):
        (one,) = await letters(settings)
    assert (one.reason, one.body) == ("invalid", line)
