"""The envelope accepts what CloudEvents and the wire allow, and nothing else."""

import json
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts import Envelope, Event, check
from contracts.envelope import batch_to_json, event_identity
from contracts.execution_log import ExecutionLogged
from contracts.identifiers import uuid7_time_ms
from contracts.task_lifecycle import TaskCreated

KEY = "019a9f6e-2f0b-7c44-9d2b-0c8a6f1f5e21"
MINIMAL = {
    "specversion": "1.0",
    "id": KEY,
    "source": "/agents/infra-1",
    "type": "task.started",
    "time": "2026-11-21T20:10:04.763Z",
    "data": {"task_id": KEY},
}


def envelope(**changes):
    return Envelope.model_validate({**MINIMAL, **changes})


def test_the_least_that_an_event_must_have_is_enough():
    """Everything else has a default or may be absent."""
    found = envelope()
    assert found.id == UUID(KEY)
    assert found.time == datetime(2026, 11, 21, 20, 10, 4, 763000, tzinfo=UTC)
    assert found.tenantid == "default"
    assert found.model_extra == {}


@pytest.mark.parametrize("name", MINIMAL)
def test_what_is_required_is_required(name):
    """An event without one of the six is refused, and the error names it."""
    with pytest.raises(ValidationError) as error:
        Envelope.model_validate({key: value for key, value in MINIMAL.items() if key != name})
    assert [item["loc"] for item in error.value.errors()] == [(name,)]


@pytest.mark.parametrize(
    "name",
    ["tenantid", "datacontenttype", "traceparent", "tracestate", "subject", "sequence", "epoch"],
)
def test_a_null_attribute_counts_as_absent(name):
    """CloudEvents lets a publisher write an unset attribute as null."""
    assert getattr(envelope(**{name: None}), name) == getattr(envelope(), name)


def test_unknown_attributes_are_kept():
    """Extensions are the publisher's: they are stored, not judged."""
    assert envelope(costcentre=17, traceflag=True).model_extra == {
        "costcentre": 17,
        "traceflag": True,
    }


def test_numbers_for_the_loss_ledger():
    """A source may number its events within an epoch."""
    found = envelope(sequence="9" * 18, epoch=KEY)
    assert (found.sequence, found.epoch) == ("9" * 18, UUID(KEY))


def test_a_publisher_may_give_a_time_as_an_object():
    """Aware times are taken, naive ones are ambiguous."""
    berlin = timezone(timedelta(hours=1))
    assert envelope(time=datetime(2026, 11, 21, 21, tzinfo=berlin)).time.hour == 20
    with pytest.raises(ValidationError, match="must have an offset"):
        envelope(time=datetime(2026, 11, 21))  # noqa: DTZ001 (that is the point)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("specversion", "0.3"),
        ("id", "17"),
        ("id", 17),
        ("id", None),
        ("source", ""),
        ("source", "two words"),
        ("source", "x" * 1025),
        ("type", ""),
        ("type", "x" * 256),
        ("datacontenttype", "text/plain"),
        ("tenantid", ""),
        ("tenantid", "a.b"),
        ("tenantid", "x" * 65),
        ("tenantid", "a\n"),
        ("tenantid", 5),
        ("subject", ""),
        ("sequence", "0"),
        ("sequence", "01"),
        ("sequence", 1),
        ("sequence", "1" + "0" * 18),
        ("epoch", "x"),
        ("time", 1795292404),
        ("data", None),
        ("data", []),
        ("data", "{}"),
    ],
)
def test_what_an_attribute_must_not_be(name, value):
    """Nothing is guessed from another type, and every length has an end."""
    with pytest.raises(ValidationError) as error:
        envelope(**{name: value})
    assert error.value.errors()[0]["loc"][0] == name


@pytest.mark.parametrize(
    "value",
    ["application/json", "application/json; charset=utf-8", "application/vnd.acme.v1+json"],
)
def test_data_is_json_under_any_of_its_names(value):
    """Suffixes and parameters of the media type do not matter."""
    assert envelope(datacontenttype=value).datacontenttype == value


@given(
    st.datetimes(
        min_value=datetime(2, 1, 1),  # noqa: DTZ001 (the time zone comes from the next strategy)
        max_value=datetime(9998, 12, 31),  # noqa: DTZ001
        timezones=st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m))),
    )
)
@settings(deadline=None)  # a busy machine is no error
def test_any_rfc_3339_time_keeps_its_instant(time):
    """Whatever offset a publisher writes, the instant is the same in UTC."""
    found = envelope(time=time.isoformat()).time
    assert found == time
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    ["2026-11-21t20:10:04z", "2026-11-21 20:10:04+00:00", "2026-11-21T20:10:04.1234567891Z"],
)
def test_rare_spellings_of_a_time_are_read(text):
    """RFC 3339 allows lower case, a space, and any number of digits; those past microseconds are cut."""
    assert envelope(time=text).time.replace(microsecond=0) == datetime(
        2026, 11, 21, 20, 10, 4, tzinfo=UTC
    )


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-21T20:10:04",
        "2026-11-21",
        "20261121T201004Z",
        "2026-W47-6T20:10:04Z",
        "2026-11-21T20:10Z",
        "2026-11-21T20:10:04+0100",
        "2026-11-21T20:10:04+01:60",
        "2026-11-21T24:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-11-21T20:10:60Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "10000-01-01T00:00:00Z",
        "٢٠٢٦-11-21T20:10:04Z",
        "1795292404",
        "",
    ],
)
def test_other_times_are_refused(text):
    """What is no RFC 3339 time, or no time that Python and PostgreSQL can hold, is an error and not a guess."""
    with pytest.raises(ValidationError) as error:
        envelope(time=text)
    assert [item["loc"] for item in error.value.errors()] == [("time",)]


def test_an_event_that_is_built_here_is_accepted_there():
    """What `event` makes goes through the worker's own check, and comes back as it was."""
    data = ExecutionLogged(
        task_id=uuid4(), step_number=1, agent_type="infra", action="x", status="running"
    )
    event = data.event(source="/a", tenant="acme", subject="s", costcentre=17)
    raw = json.loads(event.to_json())
    assert check(event) == []
    assert raw["costcentre"] == 17
    assert "traceparent" not in raw
    again = Envelope.model_validate(raw)
    assert event_identity(event) == (again.source, again.id)
    assert (again.time, again.tenantid) == (event.time, "acme")
    assert ExecutionLogged.model_validate(again.data) == data


def test_only_given_members_are_sent():
    """Defaults stay out of the message: the digest is over what the publisher said."""
    data = (
        TaskCreated(task_id=UUID(KEY), request_text="x", input={"a": None}).event(source="/a").data
    )
    assert data == {"task_id": KEY, "request_text": "x", "input": {"a": None}}


def test_a_new_event_is_of_now():
    """Id and time are made where they are not given, and agree."""
    event = Event(source="/a", type="task.started", data={"task_id": KEY})
    assert abs(event.time - datetime.now(UTC)) < timedelta(seconds=5)
    assert abs(uuid7_time_ms(event.id) / 1000 - event.time.timestamp()) < 1


def test_a_batch_is_an_array_of_whole_events():
    """CloudEvents batch mode."""
    events = [Event(source="/a", type="task.started", data={"task_id": KEY}) for _ in range(3)]
    raw = json.loads(batch_to_json(events))
    assert [item["id"] for item in raw] == [str(event.id) for event in events]
