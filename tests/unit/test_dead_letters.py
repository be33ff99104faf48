"""What needs no service: bodies for people, edits, routes, times, and the pace of publishing."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from support.events import logged

from worker.broker.pace import Pace
from worker.dead_letters import bodies, editing
from worker.dead_letters.letter import Letter
from worker.dead_letters.replay import Route, Unreplayable, message, route
from worker.dead_letters.search import Filters, in_state, moment
from worker.errors import Misconfigured

LIMIT = 8 * 1024 * 1024
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def a_letter(**given) -> Letter:
    fields = {
        "id": UUID(int=1),
        "exchange": "agent.messages",
        "routing_key": "execution.logged",
        "family": "execution-log",
        "reason": "invalid",
        "body": logged().to_json(),
        "first_seen_at": NOW,
        "last_seen_at": NOW,
        **given,
    }
    return Letter(**fields)


# --- bodies ---


def test_json_is_indented_and_spelt_as_it_was():
    """No number, escape or repeated key is altered: what is edited is what was sent."""
    text = '{"a":1.10,"a":[1e400,{}, [ ],"x\\u0041, {"],"big":123456789012345678901234567890}'
    shown = bodies.pretty(text)
    assert shown == (
        '{\n  "a": 1.10,\n  "a": [\n    1e400,\n    {},\n    [],\n    "x\\u0041, {"\n  ],\n'
        '  "big": 123456789012345678901234567890\n}\n'
    )
    assert json.loads(shown) == json.loads(text)


@pytest.mark.parametrize(
    "text", ["", "no json", '{"a": ', "[" * 100_000 + "]" * 100_000, "9" * 5000]
)
def test_what_cannot_be_indented_is_shown_as_it_is(text):
    assert bodies.pretty(text) == text


def test_bytes_are_dumped_and_cut():
    """Sixteen a line; a body of megabytes does not fill a terminal."""
    assert list(bodies.hex_dump(b"ab\x00\xff")) == ["00000000  61 62 00 ff" + " " * 38 + "ab.."]
    lines = list(bodies.hex_dump(b"x" * 100, most=32))
    assert len(lines) == 3
    assert lines[-1] == "… 68 more bytes"


def test_an_encoding_that_cannot_be_undone_leaves_the_body_as_it_is():
    assert bodies.unpacked(b"no gzip", "gzip", LIMIT) == b"no gzip"
    assert bodies.unpacked(b"text", "br", LIMIT) == b"text"


# --- routes ---


def test_a_letter_goes_where_it_came_from():
    letter = a_letter(exchange="theirs", routing_key="k")
    assert route(letter, by_type=False, max_bytes=LIMIT) == Route("theirs", "k")
    assert route(letter, by_type=True, max_bytes=LIMIT) == Route(
        "agent.messages", "execution.logged"
    )


@pytest.mark.parametrize("exchange", ["agent.unrouted", "agent.dead-letters", ""])
def test_a_letter_of_an_inner_exchange_or_none_goes_by_its_type(exchange):
    """Sent there again it would only come back."""
    letter = a_letter(exchange=exchange, routing_key="")
    assert route(letter, by_type=False, max_bytes=LIMIT) == Route(
        "agent.messages", "execution.logged"
    )
    with pytest.raises(Unreplayable):
        route(
            a_letter(exchange=exchange, routing_key="", body=b"?"), by_type=False, max_bytes=LIMIT
        )


def test_the_default_exchange_with_a_queue_is_a_place():
    letter = a_letter(exchange="", routing_key="their.queue")
    assert route(letter, by_type=False, max_bytes=LIMIT) == Route("", "their.queue")


def test_an_edit_changes_the_routing_key_only_where_it_changes_the_type():
    """A routing key that is another type of the family is the publisher's choice."""
    body = logged().to_json()
    same = a_letter(routing_key="execution.other", edited_body=body)
    assert route(same, by_type=False, max_bytes=LIMIT).routing_key == "execution.other"
    other = a_letter(body=body.replace(b"execution.logged", b"execution.loged"), edited_body=body)
    other = other.model_copy(update={"routing_key": "execution.loged"})
    assert route(other, by_type=False, max_bytes=LIMIT).routing_key == "execution.logged"
    theirs = other.model_copy(update={"exchange": "theirs"})
    assert route(theirs, by_type=False, max_bytes=LIMIT) == Route("theirs", "execution.loged")


def test_content_type_and_encoding_follow_the_body():
    """As it came; one event of a batch alone; an edited body as what it is, without an encoding."""
    properties = {"content_type": "application/cloudevents-batch+json", "content_encoding": "gzip"}

    def sent(**given):
        outgoing = message(a_letter(properties=properties, **given), by_type=False, max_bytes=LIMIT)
        assert outgoing.headers == {"x-dead-letter-id": str(UUID(int=1))}
        return outgoing.content_type, outgoing.content_encoding

    assert sent() == ("application/cloudevents-batch+json", "gzip")
    assert sent(batch_index=0) == ("application/cloudevents+json", None)
    assert sent(edited_body=b"{}") == ("application/cloudevents+json", None)
    assert sent(edited_body=b" [{}]") == ("application/cloudevents-batch+json", None)
    odd = a_letter(properties={"content_type": "x" * 300, "content_encoding": 7})
    assert message(odd, by_type=False, max_bytes=LIMIT).content_type is None
    assert message(odd, by_type=False, max_bytes=LIMIT).content_encoding is None


# --- edits ---


def test_members_are_set_and_removed():
    """JSON where it is JSON, else text; objects on the way are made, lists are not."""
    body = b'{"data": {"steps": [{"state": "a"}], "x": 1}}'
    changed = editing.changed(
        body, ["data.steps.0.state=b", "data.n=3", "data.made.deep=[1]", "data.s=a=b"], ["data.x"]
    )
    assert json.loads(changed) == {
        "data": {"steps": [{"state": "b"}], "n": 3, "made": {"deep": [1]}, "s": "a=b"}
    }
    assert json.loads(editing.changed(b'{"s": "\\ud800"}', ["a=1"], []))["s"] == "\ud800"


@pytest.mark.parametrize(
    ("body", "settings", "removals", "named"),
    [
        (b"no json", ["a=1"], [], "not JSON"),
        (b"{}", ["a"], [], "PATH=VALUE"),
        (b"{}", [], ["a.b"], "no such member"),
        (b"[1]", ["1=2"], [], "no index of a list of 1"),
        (b"[1]", ["x=2"], [], "no index"),
        (b'{"a": 1}', ["a.b=2"], [], "a is no object or list"),
        (b"1", ["a=2"], [], "the body is no object or list"),
    ],
)
def test_an_edit_that_cannot_be_made_says_why(body, settings, removals, named):
    with pytest.raises(Misconfigured, match=named):
        editing.changed(body, settings, removals)


def test_an_edit_is_checked_as_the_worker_will_check_it():
    """Envelope, contract, batches by index, and what is no JSON of the wire."""
    good = logged().to_json()
    assert editing.check(good, LIMIT) == []
    assert editing.check(b"[" + good + b"," + good + b"]", LIMIT) == []

    def places(body: bytes) -> list[tuple[list[str | int], str]]:
        return [(error["loc"], error["type"]) for error in editing.check(body, LIMIT)]

    bad = good.replace(b'"step_number":1', b'"step_number":-1')
    assert places(bad) == [(["data", "step_number"], "greater_than_equal")]
    assert places(b"[" + good + b"," + bad + b"]") == [
        ([1, "data", "step_number"], "greater_than_equal")
    ]
    assert places(b"no json") == [([], "undecodable")]
    assert places(b"[]") == [([], "json_type")]
    assert places(good.replace(b"execution.logged", b"execution.loged")) == [
        (["type"], "unknown_type")
    ]
    huge = good.replace(b'"act"', b"1e400")
    assert places(huge) == [([], "undecodable")]


# --- searching ---


def test_a_moment_is_a_time_or_how_long_ago():
    assert moment("2h", NOW) == NOW - timedelta(hours=2)
    assert moment(" 3d ", NOW) == NOW - timedelta(days=3)
    assert moment("2026-11-21") == datetime(2026, 11, 21, tzinfo=UTC)
    assert moment("2026-11-21T20:10:00+02:00") == datetime(2026, 11, 21, 18, 10, tzinfo=UTC)
    for wrong in ("", "yesterday", "2h ago", "-1h", "99999999w"):
        with pytest.raises(ValueError, match="is no time"):
            moment(wrong)


def test_a_letter_is_in_one_state():
    open_letter = a_letter()
    closed = a_letter(resolved_at=NOW, resolution="discarded")
    assert [in_state(open_letter, s) for s in ("unresolved", "resolved", "all")] == [
        True,
        False,
        True,
    ]
    assert [in_state(closed, s) for s in ("unresolved", "resolved", "all")] == [False, True, True]
    assert Filters().state == "unresolved"


# --- pace ---


async def test_a_pace_is_even_and_never_catches_up(monkeypatch):
    """Turns come one interval apart; a stop is not made up for by a burst."""
    clock = 1000.0
    slept = []

    async def sleep(seconds: float) -> None:
        nonlocal clock
        slept.append(seconds)
        clock += seconds

    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock, raising=False)
    monkeypatch.setattr("worker.broker.pace.asyncio.sleep", sleep)
    pace = Pace(10)
    for _ in range(11):
        await pace.turn()
    assert clock == pytest.approx(1001 - 0.05, abs=0.01)
    clock += 60
    before = clock
    for _ in range(11):
        await pace.turn()
    assert clock - before == pytest.approx(0.95, abs=0.01)
    slept.clear()
    await Pace(None).turn()
    assert slept == []
