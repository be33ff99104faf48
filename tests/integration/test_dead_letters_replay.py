"""A replay reaches the queue at least once and the tables exactly once, and its letter says how it ended."""

import asyncio
import gzip
import json

import aio_pika
import pytest
from support.broker import client
from support.events import logged
from support.hostile import HOSTILE, publish_hostile
from support.letters import broker, letter, letters, opened, replay, undeployed, waiting
from support.tables import count, rows
from support.waiting import until
from support.workers import drain

from worker import telemetry
from worker.broker import topology
from worker.dead_letters import editing, resolution
from worker.dead_letters import replay as replaying
from worker.dead_letters.search import Filters
from worker.errors import Unavailable

FAMILY = "execution-log"


def without(event, name) -> bytes:
    """The event without a member of its data."""
    value = json.loads(event.to_json())
    del value["data"][name]
    return json.dumps(value).encode()


async def make_unroutable(settings, *bodies, **properties) -> None:
    """Publish while the family is not deployed, and let the worker make letters of it."""
    async with undeployed(settings, FAMILY):
        async with client(settings.broker) as agent:
            for body in bodies:
                await agent.publish(body, **properties)
        await drain(settings)


async def edit(settings, **changes) -> None:
    one = await letter(settings)
    async with opened(settings) as database:
        before = editing.to_edit(one, settings.max_body_bytes)
        sets = [f"data.{name}={json.dumps(value)}" for name, value in changes.items()]
        await editing.store(database, one, editing.changed(before, sets, []))


async def test_an_unroutable_letter_lands_once_its_family_is_deployed(settings):
    """Its exchange and routing key are those it was published with, though it came by the alternate exchange."""
    await make_unroutable(
        settings, logged(), app_id="tester", headers={"CC": ["elsewhere"], "x": "y"}
    )
    before = await letter(settings)
    assert (before.reason, before.family) == ("unroutable", "unrouted")
    assert (before.exchange, before.routing_key) == (topology.MESSAGES, "execution.logged")
    done = await replay(settings)
    assert (list(done.published), done.failures) == ([before.id], {})
    await drain(settings)
    after = await letter(settings)
    assert await count(settings.database, "execution_logs") == 1
    assert (after.state, after.seen, after.replays) == ("replayed", 1, 1)
    assert after.last_replayed_at is not None
    assert after.body == before.body
    assert after.headers == before.headers


async def test_a_replay_carries_only_content_type_encoding_and_the_letters_id(settings):
    """A republished CC, user id or expiration would copy, refuse or lose the message."""
    await make_unroutable(
        settings,
        gzip.compress(logged().to_json()),
        content_encoding="gzip",
        content_type="application/json",
        expiration=3600,
        message_id="as published",
        app_id="tester",
        headers={"CC": ["elsewhere"], "x": "y"},
    )
    await replay(settings)
    async with await aio_pika.connect(settings.broker) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue(topology.queue_name(FAMILY), ensure=False)
        message = await queue.get(timeout=10)
        assert message.headers.keys() - {"x-delivery-count"} == {"x-dead-letter-id"}
        assert message.content_type == "application/json"
        assert message.content_encoding == "gzip"
        assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
        assert message.message_id not in (None, "as published")
        assert message.expiration is None
        assert message.app_id is None
        await message.nack(requeue=True)
    await drain(settings)
    assert (await letter(settings)).state == "replayed"


async def test_a_replay_that_is_rejected_again_is_the_same_letter(settings):
    """No second letter appears; `seen` and `replays` count."""
    async with client(settings.broker) as agent:
        await agent.publish(without(logged(), "action"), message_id="m")
        await drain(settings)
        for round_ in (1, 2):
            await replay(settings)
            await drain(settings)
            again = await letter(settings)
            assert (again.state, again.seen, again.replays) == ("open", 1 + round_, round_)
            assert again.message_id == "m"
            assert again.errors[0]["loc"] == ["data", "action"]
        assert [item["reason"] for item in (await agent.confirmed(3))["rejected"]] == [
            "invalid"
        ] * 3


async def test_an_edited_letter_resolves_as_edited_and_keeps_its_body(settings):
    """What was received stays what was received."""
    bad = without(logged(), "action")
    async with client(settings.broker) as agent:
        await agent.publish(bad)
    await drain(settings)
    await edit(settings, action="mended")
    await replay(settings)
    await drain(settings)
    after = await letter(settings)
    assert (after.state, after.body) == ("edited", bad)
    assert json.loads(after.edited_body)["data"]["action"] == "mended"
    stored = await rows(settings.database, "SELECT action FROM execution_logs")
    assert stored == [{"action": "mended"}]


async def test_an_edited_letter_of_a_compressed_body_is_replayed_uncompressed(settings):
    """The edited body is stored as it is read, and says so on the wire."""
    packed = gzip.compress(without(logged(), "action"))
    async with client(settings.broker) as agent:
        await agent.publish(packed, content_encoding="gzip")
    await drain(settings)
    await edit(settings, action="mended")
    await replay(settings)
    await drain(settings)
    after = await letter(settings)
    assert (after.state, after.body) == ("edited", packed)
    assert await count(settings.database, "execution_logs") == 1


async def test_an_edited_type_is_published_where_that_type_goes(settings):
    """A typo in the type is not only in the body: the routing key had it too."""
    event = json.loads(logged().to_json()) | {"type": "exection.logged"}
    async with client(settings.broker) as agent:
        await agent.publish(json.dumps(event).encode(), routing_key="exection.logged")
    await drain(settings)
    one = await letter(settings)
    assert one.reason == "unroutable"
    async with opened(settings) as database:
        body = editing.changed(one.body, ["type=execution.logged"], [])
        assert editing.check(body, settings.max_body_bytes) == []
        await editing.store(database, one, body)
    await replay(settings)
    await drain(settings)
    assert (await letter(settings)).state == "edited"


async def test_a_whole_batch_can_be_mended_and_replayed_as_a_batch(settings):
    """A body that was no JSON as a whole becomes one; what is wrong in it then is a letter of its own."""
    good, bad = logged(), without(logged(), "action")
    async with client(settings.broker) as agent:
        await agent.publish(b"[" + good.to_json() + b"," + bad, routing_key="execution.logged")
    await drain(settings)
    broken = await letter(settings)
    assert broken.reason == "undecodable"
    async with opened(settings) as database:
        await editing.store(database, broken, b"[" + good.to_json() + b"," + bad + b"]")
    await replay(settings)
    await drain(settings)
    first, second = await letters(settings)
    assert (first.id, first.state) == (broken.id, "edited")
    assert (second.batch_index, second.state) == (1, "open")
    assert json.loads(second.body) == json.loads(bad)


async def test_the_letter_of_one_event_of_a_batch_is_replayed_as_one_event(settings):
    """Its neighbours are stored already, and stay out of it."""
    bad = without(logged(), "action")
    async with client(settings.broker) as agent:
        await agent.publish_batch([logged(), bad, logged()], "execution.logged", message_id="batch")
        await drain(settings)
        one = await letter(settings)
        assert (one.batch_index, one.message_id) == (1, "batch")
        await replay(settings)
        await drain(settings)
        again = await letter(settings)
        assert (again.id, again.seen, again.batch_index) == (one.id, 2, 1)
        await edit(settings, action="mended")
        await replay(settings)
        await drain(settings)
        assert (await letter(settings)).state == "edited"
        found = await agent.confirmed(5)
    assert {outcome: len(items) for outcome, items in found.items()} == {
        "persisted": 3,
        "rejected": 2,
    }
    assert await count(settings.database, "execution_logs") == 3


async def test_a_forged_header_resolves_nothing_and_is_counted(settings):
    """Only the letter's own body makes a message its replay."""
    async with client(settings.broker) as agent:
        await agent.publish(without(logged(), "action"))
        await drain(settings)
        one = await letter(settings)
        counter = telemetry.letter_headers_ignored.labels(FAMILY)
        before = counter._value.get()
        header = {"x-dead-letter-id": str(one.id)}
        await agent.publish(logged(), headers=header)
        await agent.publish(without(logged(), "status"), headers=header)
        await drain(settings)
        assert counter._value.get() - before == 2
        found = await letters(settings)
    assert len(found) == 2
    assert found[0] == one
    assert found[1].errors[0]["loc"] == ["data", "status"]


async def test_two_replays_of_one_letter_at_once_are_harmless(settings):
    """Both reach the queue; the tables hold the message once, and the letter is resolved once."""
    await make_unroutable(settings, *(logged() for _ in range(30)))
    await asyncio.gather(*(replay(settings) for _ in range(3)))
    async with broker(settings) as connection:
        assert await topology.message_count(connection, topology.queue_name(FAMILY)) == 90
    await drain(settings)
    found = await letters(settings)
    assert {(one.state, one.replays, one.seen) for one in found} == {("replayed", 3, 1)}
    assert await count(settings.database, "execution_logs") == 30


async def test_two_replays_of_one_bad_letter_at_once_are_one_letter(settings):
    async with client(settings.broker) as agent:
        await agent.publish(without(logged(), "action"))
    await drain(settings)
    await asyncio.gather(replay(settings), replay(settings))
    await drain(settings)
    after = await letter(settings)
    assert (after.state, after.replays) == ("open", 2)
    assert after.seen in (2, 3)  # once where both were in one batch


async def test_a_crash_before_the_mark_replays_twice_and_stores_once(settings, monkeypatch):
    """What is published is in the queue, whether or not anybody remembers."""
    await make_unroutable(settings, logged(), logged())

    async def crash(*_: object) -> None:
        raise RuntimeError("the process died here")

    with monkeypatch.context() as patched:
        patched.setattr(replaying, "mark", crash)
        with pytest.raises(RuntimeError):
            await replay(settings)
    assert {one.replays for one in await letters(settings)} == {0}
    await replay(settings)
    await drain(settings)
    assert {(one.state, one.replays) for one in await letters(settings)} == {("replayed", 1)}
    assert await count(settings.database, "execution_logs") == 2


async def test_a_letter_that_is_stored_before_it_is_marked_ends_resolved(
    settings, worker, monkeypatch
):
    """The mark counts the replay and touches nothing else."""
    # (the worker runs; the family is bound, so the letter is made from a hostile property)
    async with broker(settings) as connection:
        flags, properties = HOSTILE["timestamp of 2^62"]
        await publish_hostile(connection, "execution.logged", flags, properties, logged().to_json())
    one = await until(lambda: letters(settings))
    assert one[0].reason == "undecodable"
    mark = replaying.mark

    async def late(*arguments) -> None:
        await until(lambda: letters(settings, Filters(state="resolved")))
        await mark(*arguments)

    monkeypatch.setattr(replaying, "mark", late)
    await replay(settings)
    after = await letter(settings)
    assert (after.state, after.replays) == ("replayed", 1)


async def test_a_letter_that_cannot_be_published_hides_none_behind_it(settings):
    """Missing, internal and unbound exchanges are named; the others are replayed, the channel closed or not."""
    good = [logged() for _ in range(4)]
    await make_unroutable(settings, *good)
    found = await letters(settings)
    async with await aio_pika.connect(settings.broker) as connection:
        channel = await connection.channel()
        await channel.declare_exchange("test.internal", internal=True, auto_delete=True)
        await channel.declare_exchange("test.unbound", auto_delete=True)
        named = {
            found[0].id: ("test.missing", "there is no exchange"),
            found[1].id: ("test.internal", "ACCESS_REFUSED"),
            found[2].id: ("test.unbound", "no queue took it"),
        }
        for letter_id, (exchange, _) in named.items():
            await rows(
                settings.database,
                "UPDATE dead_letters SET exchange = $2 WHERE id = $1",
                letter_id,
                exchange,
            )
        done = await replay(settings)
        await channel.exchange_delete("test.internal")
        await channel.exchange_delete("test.unbound")
    assert done.failures.keys() == named.keys()
    for letter_id, (_, why) in named.items():
        assert why in done.failures[letter_id]
    assert list(done.published) == [found[3].id]
    assert {one.id: one.replays for one in await letters(settings)} == {
        **dict.fromkeys(named, 0),
        found[3].id: 1,
    }


async def test_by_type_publishes_where_events_of_that_type_go(settings):
    """For letters of another exchange, or of a routing key that was not the type."""
    async with client(settings.broker) as agent:
        await agent.publish(logged(), routing_key="task.created")
    await drain(settings)
    one = await letter(settings)
    assert (one.reason, one.family, one.routing_key) == (
        "unknown_type",
        "task-lifecycle",
        "task.created",
    )
    await replay(settings)
    await drain(settings)
    assert (await letter(settings)).state == "open"
    await replay(settings, by_type=True)
    await drain(settings)
    assert (await letter(settings)).state == "replayed"


async def test_an_expired_message_is_a_whole_letter_and_can_be_replayed(settings):
    """The broker dead-letters it at least once; where it was published to, and for whom, is restored."""
    event = logged()
    async with client(settings.broker) as agent:
        await agent.publish(event, expiration=0.01, message_id="m", reply=True)
        await waiting(settings, topology.dead_letter_queue_name(FAMILY))
        await drain(settings)
        rejected = (await agent.confirmed(1))["rejected"]
        assert [(i["reason"], i["id"]) for i in rejected] == [("expired", str(event.id))]
        assert agent.seen[0].event["data"]["family"] == FAMILY
        assert (await agent.reply()).outcome == "rejected"
        one = await letter(settings)
        assert (one.reason, one.family, one.type) == ("expired", FAMILY, "execution.logged")
        assert (one.exchange, one.routing_key) == (topology.MESSAGES, "execution.logged")
        assert one.body == event.to_json()
        await replay(settings)
        await drain(settings)
        assert len((await agent.confirmed(1))["persisted"]) == 1
    assert (await letter(settings)).state == "replayed"


async def test_an_expired_message_with_unreadable_headers_is_replayed_by_its_type(settings):
    """Where the broker says that it was published to cannot be read; its body still says what it is."""
    flags, properties = HOSTILE["header key that is not UTF-8"]
    expiration = 0x0100
    async with broker(settings) as connection:
        await publish_hostile(
            connection,
            "execution.logged",
            flags | expiration,
            properties + b"\x011",
            logged().to_json(),
        )
    await waiting(settings, topology.dead_letter_queue_name(FAMILY))
    await drain(settings)
    one = await letter(settings)
    assert (one.reason, one.family) == ("dead_lettered", FAMILY)
    assert "not UTF-8" in one.errors[1]["msg"]
    assert (await replay(settings)).failures == {}
    await drain(settings)
    assert (await letter(settings)).state == "replayed"


async def test_hostile_properties_end_with_the_replay(settings):
    """They are kept as data, and not carried over: the body was good all along."""
    async with broker(settings) as connection:
        for flags, properties in HOSTILE.values():
            body = logged().to_json()
            assert await publish_hostile(connection, "execution.logged", flags, properties, body)
    await drain(settings)
    assert len(await letters(settings)) == len(HOSTILE)
    await replay(settings)
    await drain(settings)
    assert {one.state for one in await letters(settings)} == {"replayed"}
    assert await count(settings.database, "execution_logs") == len(HOSTILE)


async def test_headers_nested_too_deeply_for_json_are_a_letter_like_any_other(settings):
    """A table that the client library reads and jsonb's writer does not must not hold up the queue."""
    from support.hostile import HEADERS, deep_table

    async with broker(settings) as connection:
        for depth in (100, 200, 260, 320, 500):
            await publish_hostile(
                connection,
                "execution.logged",
                HEADERS,
                deep_table(depth),
                without(logged(), "action"),
            )
    await drain(settings)
    assert len(await letters(settings)) == 5


async def test_waiting_tells_what_became_of_each(settings, worker):
    """Resolved, rejected again, or nothing heard of within the time given."""
    async with broker(settings) as connection:
        flags, properties = HOSTILE["timestamp of -1"]
        good, bad = logged().to_json(), without(logged(), "action")
        for body in (good, bad):
            await publish_hostile(connection, "execution.logged", flags, properties, body)

    async def both():
        found = await letters(settings)
        return found if len(found) == 2 else None

    found = await until(both)
    ids = {one.body: one.id for one in found}
    done = await replay(settings)
    async with opened(settings) as database:
        waited = await resolution.wait(database, done.published, patience=20)
        assert waited.resolved == {"replayed": 1}
        assert waited.rejected == {ids[bad]: "invalid"}
        assert waited.unanswered == []
        again = (await letters(settings, Filters(state="unresolved")))[0]
        waited = await resolution.wait(database, {again.id: again.seen}, patience=0.1)
        assert waited.unanswered == [again.id]


async def test_a_replay_stops_with_everything_published_marked_when_the_broker_goes_away(
    settings, monkeypatch
):
    """Unavailable, and the letters that the broker has confirmed are counted as replayed."""
    await make_unroutable(settings, *(logged() for _ in range(3)))
    async with opened(settings) as database:
        wanted = [(one.id, 1) for one in await letters(settings)]
        work = replaying.Replay(database, settings.broker, name="letters", max_bytes=1000)
        async with work:
            send = work._sender.send

            async def send_then_break(item):
                if len(work._letters) == 2:
                    await work._sender.finish()
                    raise Unavailable("the broker is away")
                return await send(item)

            monkeypatch.setattr(work._sender, "send", send_then_break)
            with pytest.raises(Unavailable):
                await work.run(wanted, "unresolved")
    assert sorted(one.replays for one in await letters(settings)) == [0, 0, 1]
