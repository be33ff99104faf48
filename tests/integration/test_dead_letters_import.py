"""Letters come from anywhere: another queue, whatever is in it, and files of another database."""

import base64
import json

import aio_pika
import pytest
from support.broker import client
from support.events import logged
from support.hostile import HEADERS, HOSTILE, publish_hostile, short, table
from support.letters import EVERY, broker, letter, letters, opened, replay, waiting
from support.tables import count, rows
from support.workers import drain

from worker.broker import topology
from worker.dead_letters import transfer
from worker.dead_letters.collect import Collector
from worker.errors import Misconfigured
from worker.store import persist

QUEUE = "test.foreign.failed"
WORK = "test.foreign.work"


@pytest.fixture
def settings(settings):
    """An import leaves its confirmations to the workers' sweep, which here need not wait for their owner."""
    return settings.model_copy(update={"outbox_sweep_after": 1})


@pytest.fixture
async def foreign(settings):
    """A queue of somebody else's, whose messages go to another queue when they expire."""
    async with await aio_pika.connect(settings.broker) as connection:
        channel = await connection.channel()
        to_failed = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": QUEUE}
        await channel.declare_queue(QUEUE)
        await channel.declare_queue(WORK, arguments=to_failed)
        exchange = await channel.declare_exchange("test.foreign", "topic", auto_delete=True)
        queue = await channel.get_queue(WORK)
        await queue.bind(exchange, "job.#")
        yield exchange
        for name in (QUEUE, WORK):
            await channel.queue_delete(name)


async def collect(settings, queue: str = QUEUE) -> int:
    async with opened(settings) as database, broker(settings) as connection:
        return await Collector(database, connection, queue, settings).run()


async def left(settings, queue: str = QUEUE) -> int:
    async with broker(settings) as connection:
        return await topology.message_count(connection, queue)


async def test_a_foreign_dead_letter_comes_with_the_brokers_account_of_its_death(settings, foreign):
    """Reason, exchange and routing key are those of x-death; the queue is empty afterwards."""
    body = b'{"not": "ours"}'
    message = aio_pika.Message(body, expiration=0.001, message_id="m", content_type="text/json")
    await foreign.publish(message, "job.failed")
    await waiting(settings, QUEUE)
    assert await collect(settings) == 1
    one = await letter(settings)
    assert (one.reason, one.family, one.body) == ("expired", "unrouted", body)
    assert (one.exchange, one.routing_key) == ("test.foreign", "job.failed")
    assert (one.message_id, one.content_type) == ("m", "text/json")
    assert one.headers["x-death"][0]["queue"] == WORK
    assert await left(settings) == 0


async def test_events_of_a_known_type_belong_to_its_family_and_can_be_replayed(settings, foreign):
    """What was put straight into the queue goes to the exchange of events, not into that queue again."""
    async with client(settings.broker) as agent:
        await agent.channel.default_exchange.publish(aio_pika.Message(logged().to_json()), QUEUE)
    assert await collect(settings) == 1
    one = await letter(settings)
    assert (one.reason, one.family, one.type) == (
        "dead_lettered",
        "execution-log",
        "execution.logged",
    )
    assert QUEUE in one.errors[0]["msg"]
    assert (one.exchange, one.routing_key) == (topology.MESSAGES, "execution.logged")
    await replay(settings)
    await drain(settings)
    assert (await letter(settings)).state == "replayed"
    assert await count(settings.database, "execution_logs") == 1


def deaths(*items: bytes) -> bytes:
    """A header table with an x-death of a publisher's own making."""
    return table(short(b"x-death") + b"A" + table(b"".join(items)))


FORGED = {
    "x-death that is text": table(short(b"x-death") + b"S" + table(b"text")),
    "x-death that is an empty list": deaths(),
    "x-death of numbers": deaths(b"t\x01"),
    "x-death whose reason is a table": deaths(
        b"F" + table(short(b"reason") + b"F" + table(b"")),
    ),
    "x-death whose keys are numbers": deaths(
        b"F" + table(short(b"routing-keys") + b"A" + table(b"t\x01")),
    ),
    "x-death that names one of our queues": deaths(
        b"F" + table(short(b"queue") + b"S" + table(b"worker.trajectory")),
    ),
}


async def test_hostile_properties_hide_none_behind_them(settings, foreign):
    """Each message is a letter with its whole body, in front of and behind those that nobody can read."""
    cases = {**HOSTILE, **{name: (HEADERS, headers) for name, headers in FORGED.items()}}
    published = []
    async with broker(settings) as connection:
        for flags, properties in cases.values():
            for hostile in (True, False):
                body = logged().to_json()
                published.append(body)
                wanted = (flags, properties) if hostile else (0, b"")
                assert await publish_hostile(connection, QUEUE, *wanted, body, exchange="")
    assert await collect(settings) == len(published)
    found = await letters(settings)
    assert sorted(one.body for one in found) == sorted(published)
    assert {one.reason for one in found} == {"dead_lettered"}
    assert await left(settings) == 0
    assert (await replay(settings)).failures == {}
    await drain(settings)
    assert await count(settings.database, "execution_logs") == len(published)


async def test_many_and_large_messages_are_taken_within_the_memory_budget(settings, foreign):
    """Bodies past the budget wait in the queue until there is room."""
    small = settings.model_copy(update={"memory_budget": 64 * 1024, "batch_messages": 50})
    async with client(settings.broker) as agent:
        for number in range(300):
            body = json.dumps(
                {"number": number, "text": "x" * (40_000 if number % 50 == 0 else 10)}
            )
            message = aio_pika.Message(body.encode())
            await agent.channel.default_exchange.publish(message, QUEUE)
    assert await collect(small) == 300
    assert len({one.body for one in await letters(settings)}) == 300
    assert await left(settings) == 0


async def test_a_crash_before_the_acknowledgement_copies_again_into_the_same_letter(
    settings, foreign, monkeypatch
):
    """At least once, and the id is a digest of the message: `seen` tells of it."""
    async with client(settings.broker) as agent:
        for name in ("a", "b"):
            message = aio_pika.Message(name.encode(), message_id=name)
            await agent.channel.default_exchange.publish(message, QUEUE)
    commit = persist.Persister.persist

    async def commit_and_die(self, decoded):
        await commit(self, decoded)
        raise RuntimeError("the process died here")

    with monkeypatch.context() as patched:
        patched.setattr(persist.Persister, "persist", commit_and_die)
        with pytest.raises(RuntimeError):
            await collect(settings)
    seen_before = {one.message_id: one.seen for one in await letters(settings)}
    assert await collect(settings) == 2
    seen = {one.message_id: one.seen for one in await letters(settings)}
    assert seen == {name: seen_before.get(name, 0) + 1 for name in ("a", "b")}
    assert await left(settings) == 0


async def test_the_workers_own_dead_letter_queues_can_be_imported_too(settings):
    """The same letter as the worker itself would have made."""
    async with client(settings.broker) as agent:
        await agent.publish(logged(), expiration=0.001)
    queue = topology.dead_letter_queue_name("execution-log")
    await waiting(settings, queue)
    assert await collect(settings, queue) == 1
    one = await letter(settings)
    assert (one.reason, one.family, one.exchange) == ("expired", "execution-log", topology.MESSAGES)


@pytest.mark.parametrize(
    ("queue", "named"),
    [("no.such.queue", "there is no queue"), ("worker.execution-log", "worker run")],
)
async def test_a_queue_that_cannot_be_meant_is_refused(settings, queue, named):
    """A typo, and the queue of good messages."""
    with pytest.raises(Misconfigured, match=named):
        await collect(settings, queue)


# --- files ---


async def exported(settings) -> list[str]:
    async with opened(settings) as database:
        return [line async for line in transfer.export(database, EVERY, settings.max_body_bytes)]


async def imported(settings, lines) -> transfer.Imported:
    async with opened(settings) as database:
        return await transfer.import_lines(database, [line.encode() + b"\n" for line in lines])


async def make_letters(settings) -> None:
    """Some of every kind."""
    async with client(settings.broker) as agent:
        await agent.publish(b"\xff\x00 no text", message_id="bytes", headers={"a": ["b", 1]})
        await agent.publish(b"{}", b'{"type": "execution.logged"}', b"")
        await agent.publish_batch([logged(), b"{}"], "execution.logged")
    await drain(settings)


async def test_an_export_comes_back_as_it_was(settings):
    """Every column of every row; a second import changes nothing."""
    await make_letters(settings)
    before = await letters(settings)
    lines = await exported(settings)
    assert len(lines) == len(before) == 5
    by_id = {json.loads(line)["message_id"]: json.loads(line) for line in lines}
    first = by_id["bytes"]
    assert base64.b64decode(first["body"]) == b"\xff\x00 no text"
    assert first["body_text"] is None
    assert "{}" in [json.loads(line)["body_text"] for line in lines]
    await rows(settings.database, "DELETE FROM dead_letters")
    result = await imported(settings, lines)
    assert (result.new, result.known, result.bad) == (5, 0, {})
    assert await letters(settings) == before
    await rows(settings.database, "UPDATE dead_letters SET replays = 7")
    result = await imported(settings, lines)
    assert (result.new, result.known, result.bad) == (0, 5, {})
    assert {one.replays for one in await letters(settings)} == {7}


async def test_lines_that_are_no_letters_are_named_and_hide_none(settings):
    """Not JSON, a member missing, and what only PostgreSQL refuses."""
    await make_letters(settings)
    good = await exported(settings)
    await rows(settings.database, "DELETE FROM dead_letters")
    refused = json.loads(good[1]) | {"resolution": "discarded"}  # but not resolved
    no_body = {key: value for key, value in json.loads(good[2]).items() if key != "body"}
    bad_base64 = json.loads(good[2]) | {"body": "no base64!"}
    lines = [
        good[0],
        "hello",
        json.dumps(refused),
        json.dumps(no_body),
        "",
        json.dumps(bad_base64),
        *good[2:],
    ]
    result = await imported(settings, lines)
    assert (result.new, result.known) == (4, 0)
    assert result.bad.keys() == {2, 3, 4, 6}
    assert "ck_dead_letters_resolved" in result.bad[3]
    assert "body: Field required" in result.bad[4]
    assert await count(settings.database, "dead_letters") == 4
