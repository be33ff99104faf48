"""The client without a broker: ledger, batches, repetition, and what a caller is told."""

import asyncio
import json
import logging
from uuid import UUID

import pytest
from support.waiting import turn, until

from contracts import PersistenceConfirmed, uuid7
from contracts.confirmation import REASONS
from contracts.envelope import CONTENT_TYPE, CONTENT_TYPE_BATCH, Event
from contracts.execution_log import ExecutionLogged
from contracts.limits import MAX_BODY_BYTES
from contracts.publishing import dispatch
from contracts.publishing.dispatch import LinkLost, Nacked, delay
from contracts.publishing.errors import (
    REMEDIES,
    InvalidEvent,
    NotAccepted,
    NotConfirmed,
    NotConnected,
    PublisherClosed,
    Rejected,
    Unanswered,
    Unroutable,
)
from contracts.publishing.publisher import EventPublisher
from contracts.task_lifecycle import TaskApproved, TaskCancelled, TaskCompleted, TaskStarted

SOURCE = "/agents/infra-1"


class Broker:
    """Stands for broker and worker: `links` are those that were opened, `script` what the next sends meet."""

    def __init__(self):
        self.links = []
        self.parcels = []
        self.script = []
        self.answers = True
        self.outcome = "persisted"
        self.details = {}
        self.refuse = []

    async def open(self, on_reply):
        if self.refuse:
            raise self.refuse.pop(0)
        link = FakeLink(self, on_reply)
        self.links.append(link)
        return link

    @property
    def events(self):
        """The events of every parcel that was sent, by parcel."""
        bodies = [json.loads(parcel.body) for parcel in self.parcels]
        return [body if isinstance(body, list) else [body] for body in bodies]


class FakeLink:
    def __init__(self, broker, on_reply):
        self.broker = broker
        self.on_reply = on_reply
        self.lost = asyncio.Event()
        self.closed = False

    async def send(self, parcel):
        await turn()
        if self.lost.is_set():
            raise LinkLost
        self.broker.parcels.append(parcel)
        step = self.broker.script.pop(0) if self.broker.script else None
        if isinstance(step, Exception):
            raise step
        if step == "hang":
            await asyncio.Event().wait()
        if self.broker.answers and parcel.asked:
            self.reply(parcel)

    def reply(self, parcel, **changes):
        body = json.loads(parcel.body)
        items = [
            {"id": e["id"], "type": e["type"], "key": e["id"], "source": e["source"]}
            | self.broker.details
            for e in (body if isinstance(body, list) else [body])
        ]
        data = {
            "family": "execution-log",
            "outcome": self.broker.outcome,
            "tenant": "default",
            "worker": "w",
            "committed_at": "2026-11-21T20:10:04.763Z",
            "items": items,
        }
        confirmation = PersistenceConfirmed.model_validate({**data, **changes})
        self.on_reply(confirmation.event(source="/workers/w").to_json(), parcel.correlation_id)

    async def close(self):
        self.closed = True
        self.lost.set()


@pytest.fixture
def broker(monkeypatch):
    """A broker that fails fast: delays are a thousandth of what they are."""
    monkeypatch.setattr(dispatch, "delay", lambda failures: delay(failures) / 1000)
    return Broker()


def publisher(broker, **options):
    return EventPublisher(broker.open, **{"source": SOURCE, "timeout": 2.0, **options})


def logged(**changes):
    members = {"step_number": 1, "agent_type": "infra", "action": "apply", "status": "completed"}
    return ExecutionLogged(task_id=uuid7(), **{**members, **changes}).event(source=SOURCE)


async def test_publish_returns_when_the_broker_has_it(broker):
    """One event, one message, named after its type, asking for an answer."""
    async with publisher(broker) as p:
        event = logged()
        await p.publish(event)
    (parcel,) = broker.parcels
    assert Event.model_validate_json(parcel.body) == event.model_copy(
        update={"sequence": "1", "epoch": p.epoch}
    )
    assert (parcel.routing_key, parcel.content_type) == ("execution.logged", CONTENT_TYPE)
    assert parcel.correlation_id == str(event.id)
    assert parcel.asked
    assert broker.links[0].closed


async def test_persisted_publishes_once(broker):
    """Whether publish was called before or not, the event is sent one time."""
    async with publisher(broker) as p:
        first, second = logged(), logged()
        await p.publish(first)
        assert await p.persisted(first) == "persisted"
        assert await p.persisted(second) == "persisted"
        broker.outcome = "duplicate"
        assert await p.persisted(second) == "duplicate"  # its answer was given out: asked again
    assert len(broker.parcels) == 3


async def test_many_callers_of_one_event_share_it(broker):
    """An event that is under way is not sent again."""
    async with publisher(broker) as p:
        event = logged()
        calls = [p.persisted(event), p.persisted(event), p.publish(event)]
        assert await asyncio.gather(*calls) == ["persisted", "persisted", None]
    assert len(broker.parcels) == 1


async def test_a_rejection_says_where_and_what_to_do(broker):
    """The text names the place, the reason and the remedy; the program finds all three."""
    broker.outcome = "rejected"
    errors = [{"loc": ["data", "action"], "msg": "too long", "type": "x"}]
    broker.details = {"reason": "unstorable", "errors": errors}
    async with publisher(broker) as p:
        with pytest.raises(Rejected) as caught:
            await p.persisted(logged())
    assert caught.value.reason == "unstorable"
    assert caught.value.errors[0].loc == ("data", "action")
    assert "data.action: too long" in str(caught.value)
    assert REMEDIES["unstorable"] in str(caught.value)


async def test_a_rejection_that_nobody_waits_for_is_logged_without_the_event(broker, caplog):
    """Fire and forget is not fire and never know; the content stays out of the log."""
    broker.outcome = "rejected"
    broker.details = {"reason": "conflict", "errors": []}
    async with publisher(broker) as p:
        event = logged(action="s3cret")
        await p.publish(event)
        with pytest.raises(Rejected):  # the answer is kept for who asks later
            await p.persisted(event)
    assert f"execution.logged {event.id} was rejected as conflict" in caplog.text
    assert "s3cret" not in caplog.text


async def test_a_reason_of_a_later_version_is_shown_as_it_is(broker):
    """An old client understands that it was rejected, whatever the reason is called."""
    broker.outcome = "rejected"
    broker.details = {"reason": "too_late_for_that", "errors": None}
    async with publisher(broker) as p:
        with pytest.raises(Rejected, match="rejected as too_late_for_that"):
            await p.persisted(logged())


def numbers(broker):
    """The numbers of what was sent, in the order in which it was sent."""
    return [event.get("sequence") for events in broker.events for event in events]


async def test_events_are_numbered_by_tenant_and_source_from_1(broker):
    """Each source of each tenant has numbers without a gap; all share the epoch of the publisher."""
    async with publisher(broker, batch=True) as p:
        ours, theirs = [logged() for _ in range(3)], logged().model_copy(update={"source": "/b"})
        other = logged().model_copy(update={"tenantid": "acme"})
        await asyncio.gather(*map(p.publish, [*ours, theirs, other]))
        assert p.last_sequence == 3
        assert {(o.tenantid, o.source): o.sequence for o in p.published} == {
            ("default", SOURCE): 3, ("default", "/b"): 1, ("acme", SOURCE): 1
        }  # fmt: skip
    assert numbers(broker) == ["1", "2", "3", "1", "1"]
    assert {event["epoch"] for events in broker.events for event in events} == {str(p.epoch)}
    assert publisher(broker).epoch > p.epoch
    assert p.epoch.version == 7


async def test_an_event_that_is_sent_again_keeps_its_number(broker):
    """By the caller, over a new connection, after a refusal, or for a lost answer: it is the same event."""
    broker.script = [LinkLost(), None, Nacked("full"), None, LinkLost()]
    async with publisher(broker) as p:
        first, second, third = logged(), logged(), logged()
        await p.publish(first)
        await p.publish(second)
        await p.publish(first)
        broker.answers = False
        await p.publish(third)
        broker.answers = True
        broker.links[-1].lost.set()
        await p.persisted(third)
    sent = [(e["id"], e["sequence"]) for events in broker.events for e in events]
    assert set(sent) == {(str(e.id), n) for e, n in ((first, "1"), (second, "2"), (third, "3"))}
    assert len(sent) > 5


async def test_a_number_of_its_own_is_left_as_it_is(broker):
    """Who numbers events himself, or forwards those of others, knows best."""
    async with publisher(broker) as p:
        for own in ({"sequence": "7"}, {"sequence": "8", "epoch": uuid7()}, {"epoch": uuid7()}):
            await p.publish(logged().model_copy(update=own))
        await p.publish(logged())
    assert numbers(broker) == ["7", "8", None, "1"]


async def test_what_is_refused_here_takes_no_number(broker):
    """Neither an invalid event, nor one that found no room, nor one that came too late."""
    async with publisher(broker, max_unanswered=1) as p:
        with pytest.raises(InvalidEvent):
            await p.publish(logged(status="completed").model_copy(update={"data": {}}))
        broker.script = ["hang"]
        stuck = asyncio.create_task(p.publish(logged(), timeout=0.2))
        await until(lambda: broker.parcels)
        with pytest.raises(NotConfirmed, match="was not sent"):
            await p.publish(logged(), timeout=0.01)
        with pytest.raises(NotConfirmed):
            await stuck
        assert p.last_sequence == 1
        p._ledger.abandon(NotConfirmed("test"))
    with pytest.raises(PublisherClosed):
        await p.publish(logged())
    assert p.last_sequence == 1


async def test_an_event_at_the_limit_of_size_travels_without_a_number(broker):
    """A number must not make an event too large."""
    room = MAX_BODY_BYTES - len(logged(action="x").to_json())
    async with publisher(broker) as p:
        await p.publish(logged(action="x" * (room + 1)))
    assert numbers(broker) == [None]
    assert p.published == []


async def test_an_invalid_event_is_not_sent(broker):
    """Every error is told at once, before anything goes over the wire."""
    wrong = Event(source=SOURCE, type="execution.logged", data={"task_id": "7", "status": "done"})
    async with publisher(broker) as p:
        with pytest.raises(InvalidEvent) as caught:
            await p.publish(wrong)
    assert [e.loc[-1] for e in caught.value.errors] == [
        *("task_id", "step_number", "agent_type", "action", "status")
    ]
    assert broker.parcels == []


async def test_checking_can_be_left_to_the_worker(broker):
    """Without validation the worker decides."""
    wrong = Event(source=SOURCE, type="some.thing", data={})
    async with publisher(broker, validate=False) as p:
        await p.publish(wrong)
    assert broker.events[0][0]["type"] == "some.thing"


async def test_an_item_without_an_id_is_about_all_that_was_in_the_message(broker):
    """What the worker cannot decode has no id: the correlation id says which message it was."""
    broker.answers = False
    async with publisher(broker, batch=True) as p:
        calls = [asyncio.ensure_future(p.persisted(logged())) for _ in range(3)]
        await until(lambda: broker.parcels)
        item = {"id": None, "source": None, "reason": "undecodable", "errors": []}
        broker.links[0].reply(broker.parcels[0], outcome="rejected", items=[item])
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [Rejected] * 3


async def test_one_message_may_get_several_answers(broker):
    """A batch's outcomes come in replies of their own, split and in any order."""
    broker.answers = False
    async with publisher(broker, batch=True) as p:
        events = [logged() for _ in range(3)]
        calls = [asyncio.ensure_future(p.persisted(event)) for event in events]
        await until(lambda: broker.parcels)
        item = [{"id": str(event.id), "source": SOURCE} for event in events]
        (parcel,), (link,) = broker.parcels, broker.links
        link.reply(parcel, outcome="duplicate", items=[item[2]])
        link.on_reply(b"{", parcel.correlation_id)
        link.reply(parcel, items=[{"id": str(uuid7()), "source": "/someone"}, item[1]])
        link.reply(parcel, outcome="rejected", items=[{**item[0], "reason": "conflict"}])
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[0], Rejected)
    assert results[1:] == ["persisted", "duplicate"]


async def test_events_of_one_family_travel_together(broker):
    """Batch mode: one message a family, at most so many events in it."""
    async with publisher(broker, batch=True, max_batch_events=3) as p:
        logs = [logged() for _ in range(7)]
        task = p.event(TaskApproved(task_id=uuid7()))
        await asyncio.gather(*map(p.publish, [*logs, task]))
    assert sorted(len(events) for events in broker.events) == [1, 1, 3, 3]
    by_type = {parcel.content_type: parcel.routing_key for parcel in broker.parcels}
    assert by_type[CONTENT_TYPE_BATCH] == "execution.logged"
    assert {e["id"] for events in broker.events for e in events} == {
        str(event.id) for event in [*logs, task]
    }


async def test_a_batch_is_bounded_in_bytes(broker):
    """A large event does not ride with others past the limit, and goes alone if it is past it itself."""
    async with publisher(broker, batch=True, max_batch_bytes=5000) as p:
        events = [logged(output_full="x" * size) for size in (1000, 20_000, 2000, 2000, 2000)]
        await asyncio.gather(*map(p.publish, events))
    assert [len(events) for events in broker.events] == [1, 1, 2, 1]
    assert all(
        len(p.body) <= 5000 or len(e) == 1
        for p, e in zip(broker.parcels, broker.events, strict=True)
    )


async def test_a_refused_message_is_sent_again(broker):
    """A nack is 'not now'."""
    broker.script = [Nacked("x"), Nacked("x")]
    async with publisher(broker) as p:
        assert await p.persisted(logged()) == "persisted"
    assert len(broker.parcels) == 3


async def test_what_the_broker_refuses_again_and_again_is_given_up(broker):
    """After half a minute of nacks the caller is told: a cluster needs some of that to elect the leader of a queue."""
    broker.script = [Nacked("Basic.Nack")] * 20
    async with publisher(broker) as p:
        with pytest.raises(NotAccepted, match="the broker refused it"):
            await p.publish(logged())
    assert len(broker.parcels) == 1 + dispatch.MAX_NACKS


async def test_what_an_old_link_refuses_is_sent_over_a_new_one(broker, monkeypatch):
    """A channel can be refused for ever: after ten seconds it is replaced, and what was under way is sent again."""
    async with publisher(broker) as p:
        broker.script = [Nacked("x")]
        await p.publish(logged())
        assert len(broker.links) == 1
        monkeypatch.setattr(dispatch.Dispatcher, "_is_stable", lambda _: True)
        broker.script = [Nacked("x")]
        await p.publish(logged())
    assert len(broker.links) == 2
    assert broker.links[0].closed


async def test_what_cannot_be_sent_fails_at_once(broker):
    """An event that the library cannot write will not be written the next time either."""
    broker.script = [NotAccepted("it cannot be sent: x")]
    async with publisher(broker) as p:
        with pytest.raises(NotAccepted):
            await p.publish(logged())
        await p.publish(logged())


async def test_a_broken_link_is_replaced(broker):
    """What was under way is sent again over the next link; a repetition is stored once."""
    broker.script = [LinkLost()]
    async with publisher(broker) as p:
        assert await p.persisted(logged()) == "persisted"
    assert len(broker.links) == 2
    assert len(broker.parcels) == 2


async def test_only_answers_that_are_waited_for_are_asked_again(broker):
    """Answers of a lost link never come: events somebody waits for are sent again, the others rest with the broker."""
    broker.answers = False
    async with publisher(broker) as p:
        silent, awaited = logged(), logged()
        await p.publish(silent)
        call = asyncio.ensure_future(p.persisted(awaited))
        await until(lambda: len(broker.parcels) == 2)
        broker.answers = True
        broker.links[0].lost.set()
        assert await call == "persisted"
    assert [events[0]["id"] for events in broker.events[2:]] == [str(awaited.id)]


async def test_who_asks_again_and_is_refused_hears_of_it(broker):
    """The broker has the event, the link is lost, and the repetition is not taken: no call waits for its time to run out."""
    broker.answers = False
    async with publisher(broker, timeout=60) as p:
        call = asyncio.ensure_future(p.persisted(logged()))
        await until(lambda: broker.parcels and not p._dispatcher._tasks)
        broker.script = [NotAccepted("it cannot be sent: too odd")]
        broker.links[0].lost.set()
        with pytest.raises(NotAccepted, match="too odd"):
            async with asyncio.timeout(20):
                await call


async def test_who_closes_the_channel_is_found_and_given_up(broker):
    """A broker closes the channel over one message: that one fails in the end, its neighbours pass."""
    bad, good = logged(action="bad"), [logged() for _ in range(5)]

    class Closing(FakeLink):
        broken = False

        async def send(self, parcel):
            self.broken |= b'"bad"' in parcel.body
            await turn()
            if self.broken:  # all that is under way fails alike
                raise LinkLost(Unroutable("no such exchange"))
            await super().send(parcel)

    async def open_link(on_reply):
        broker.links.append(Closing(broker, on_reply))
        return broker.links[-1]

    broker.open = open_link
    async with publisher(broker) as p:
        results = await asyncio.gather(*map(p.publish, [bad, *good]), return_exceptions=True)
    assert isinstance(results[0], Unroutable)
    assert results[1:] == [None] * 5


async def test_a_wrong_password_is_told_at_once(broker):
    """The first connection fails fast where trying again cannot help."""
    hopeless = NotConnected("ACCESS_REFUSED")
    hopeless.hopeless = True
    broker.refuse = [hopeless]
    with pytest.raises(NotConnected, match="ACCESS_REFUSED"):
        await publisher(broker).__aenter__()


async def test_a_broker_that_starts_late_is_waited_for(broker):
    """Agents and broker may start in any order."""
    broker.refuse = [NotConnected("refused")] * 4
    async with publisher(broker) as p:
        await p.publish(logged())


async def test_a_broker_that_is_away_is_named(broker):
    """After the timeout the caller learns why there is no connection."""
    broker.refuse = [NotConnected("no connection to RabbitMQ at 127.0.0.1:1")] * 10_000
    with pytest.raises(NotConnected, match=r"at 127\.0\.0\.1:1"):
        await publisher(broker, timeout=0.05).__aenter__()


async def test_times_that_run_out_say_what_was_waited_for(broker):
    """The broker's confirm, the worker's answer, or room to send at all."""
    broker.script = ["hang"]
    broker.answers = False
    async with publisher(broker, max_unanswered=1, close_timeout=0.02) as p:
        stuck = asyncio.ensure_future(p.publish(logged(), timeout=0.1))
        await turn()
        with pytest.raises(NotConfirmed, match="max_unanswered"):
            await p.publish(logged(), timeout=0.02)
        with pytest.raises(NotConfirmed, match="did not confirm"):
            await stuck
        with pytest.raises(NotConfirmed, match="did not confirm 1 events"):
            await p.close()
    async with publisher(broker) as p:
        with pytest.raises(Unanswered, match="is a worker running"):
            await p.persisted(logged(), timeout=0.02)


async def test_asking_again_after_a_lost_answer_sends_again(broker):
    """An answer may be lost with a worker; the caller's next attempt gets one."""
    broker.answers = False
    async with publisher(broker) as p:
        event = logged()
        with pytest.raises(Unanswered):
            await p.persisted(event, timeout=0.02)
        broker.answers = True
        broker.outcome = "duplicate"
        assert await p.persisted(event) == "duplicate"
    assert len(broker.parcels) == 2


async def test_publishing_goes_on_while_no_worker_answers(broker):
    """A database that is away must not stop agents that only publish: the backlog belongs to the broker."""
    broker.answers = False
    async with publisher(broker, max_unanswered=3) as p:
        for _ in range(10):
            await p.publish(logged())
    assert len(broker.parcels) == 10


async def test_waiting_callers_are_bounded(broker):
    """At most so many events are unanswered; whoever comes later waits for room and then goes on."""
    broker.answers = False
    async with publisher(broker, max_unanswered=2) as p:
        calls = [asyncio.ensure_future(p.persisted(logged())) for _ in range(5)]
        await until(lambda: len(p._ledger._line) == 3)  # the others stand in line
        assert len(broker.parcels) == 2
        calls.pop(4).cancel()  # one that waits for room gives up
        broker.answers = True
        for parcel in broker.parcels[:2]:
            broker.links[0].reply(parcel)
        assert await asyncio.gather(*calls) == ["persisted"] * 4


async def test_bytes_under_way_are_bounded(broker):
    """Few large events fill the room as many small ones do; one that is larger than all of it goes alone."""
    broker.script = ["hang"]
    async with publisher(broker, max_unanswered_bytes=5000, close_timeout=0.02) as p:
        large = asyncio.ensure_future(p.publish(logged(output_full="x" * 8000)))
        await until(lambda: broker.parcels)
        with pytest.raises(NotConfirmed, match="was not sent"):
            await p.publish(logged(), timeout=0.02)
        large.cancel()
        with pytest.raises(NotConfirmed):
            await p.close()


async def test_without_replies_nobody_is_asked_until_somebody_waits(broker):
    """Workers are spared answers that nobody reads."""
    async with publisher(broker, replies=False) as p:
        event = logged()
        await p.publish(event)
        assert not broker.parcels[0].asked
        broker.outcome = "duplicate"
        assert await p.persisted(event) == "duplicate"
    assert broker.parcels[1].asked


async def test_two_events_with_one_id_are_a_mistake(broker):
    """Answers are told apart by source and id."""
    broker.answers = False
    async with publisher(broker) as p:
        event = logged()
        await p.publish(event)
        with pytest.raises(InvalidEvent, match="another event with this source and id"):
            await p.publish(event.model_copy(update={"subject": "other"}))


async def test_closing_sends_what_waits_in_a_batch(broker):
    """Nothing that was handed over is left behind in a linger."""
    p = publisher(broker, batch=True, linger=60)
    await p.__aenter__()
    call = asyncio.ensure_future(p.publish(logged()))
    await turn()
    await p.close()
    await call
    assert len(broker.parcels) == 1
    await p.close()  # twice is once


async def test_closing_ends_calls_that_still_wait(broker):
    """Nobody is left hanging."""
    broker.answers = False
    p = publisher(broker, close_timeout=0.02)
    await p.__aenter__()
    call = asyncio.ensure_future(p.persisted(logged()))
    await until(lambda: broker.parcels)
    await p.close()
    with pytest.raises(NotConfirmed, match="closed"):
        await call


async def test_an_error_in_the_block_is_not_hidden_by_closing(broker, caplog):
    """The caller sees its own error; what was lost is in the log."""
    broker.script = ["hang"]
    calls = []

    async def block():
        async with publisher(broker, close_timeout=0.02) as p:
            calls.append(asyncio.ensure_future(p.publish(logged())))
            await until(lambda: broker.parcels)
            raise ZeroDivisionError

    with caplog.at_level(logging.WARNING), pytest.raises(ZeroDivisionError):
        await block()
    assert "did not confirm 1 events" in caplog.text
    with pytest.raises(NotConfirmed):
        await calls[0]


async def test_a_publisher_that_is_not_open_says_so(broker):
    """Before and after the block."""
    p = publisher(broker)
    with pytest.raises(PublisherClosed):
        await p.publish(logged())
    async with p:
        await p.publish(logged())
    with pytest.raises(PublisherClosed):
        await p.publish(logged())


async def test_a_cancelled_call_leaves_no_trace(broker):
    """Its event goes on; others that wait for the same are not disturbed."""
    broker.answers = False
    async with publisher(broker) as p:
        event = logged()
        first, second = (asyncio.ensure_future(p.persisted(event)) for _ in range(2))
        await until(lambda: broker.parcels)
        first.cancel()
        await turn()
        broker.links[0].reply(broker.parcels[0])
        assert await second == "persisted"


def test_the_events_of_a_task_carry_its_attempt():
    """Whoever retries stamps the new attempt on every later event."""
    p = EventPublisher(Broker().open, source=SOURCE, tenant="acme")
    task = p.task(UUID("019a9f6e-2e01-7b10-8a01-51d1c0de0001"))
    started = task.event(TaskStarted, agent_id="infra-1")
    assert (started.source, started.tenantid) == (SOURCE, "acme")
    assert started.data == {"task_id": str(task.task_id), "attempt": 1, "agent_id": "infra-1"}
    assert task.retrying().data["attempt"] == 2
    assert task.event(TaskCompleted, output=1).data["attempt"] == 2
    assert "attempt" not in task.event(TaskApproved).data
    assert task.event(TaskCancelled, attempt=None).data["attempt"] is None
    assert p.task(task.task_id, attempt=4).retrying().data["attempt"] == 5


def test_a_source_is_needed_to_make_events():
    """Without one the error says what to do."""
    with pytest.raises(ValueError, match="source='/agents/infra-1'"):
        EventPublisher(Broker().open).event(TaskApproved(task_id=uuid7()))


@pytest.mark.parametrize("options", [{"max_batch_events": 10_001}, {"max_batch_bytes": 1_000_001}])
def test_a_batch_cannot_be_made_too_large_for_the_wire(options):
    """A batch past the limits would be rejected as a whole."""
    with pytest.raises(ValueError, match=next(iter(options))):
        EventPublisher(Broker().open, **options)


def test_every_reason_has_a_remedy():
    """No rejection leaves its publisher without a next step."""
    assert set(REMEDIES) == set(REASONS)


def test_delays_grow_to_an_end():
    """Back-off doubles, is never the same for two clients, and ends at ten seconds."""
    assert 0.025 <= delay(0) <= 0.05
    assert all(5 <= delay(failures) <= 10 for failures in (8, 50, 5000))
    assert len({delay(3) for _ in range(20)}) > 1
