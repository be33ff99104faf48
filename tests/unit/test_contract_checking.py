"""`contracts.check` finds on the publisher's side what the worker would reject."""

import json

import pytest

from contracts import ErrorDetail, check, checking, uuid7
from contracts.checking import check_body
from contracts.execution_log import ExecutionLogged
from contracts.limits import MAX_BODY_BYTES, MAX_ERRORS, MAX_ERRORS_BYTES


def logged(output):
    return ExecutionLogged(
        task_id=uuid7(),
        step_number=1,
        agent_type="infra",
        action="apply",
        status="completed",
        output_full=output,
    ).event(source="/agents/infra-1")


def nested(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


def found(event):
    return [(detail.loc, detail.type) for detail in check(event)]


@pytest.mark.parametrize("output", [None, 2**64 - 1, -(2**63), 1.7e308, "\0", nested(62)])
def test_what_the_wire_allows_passes(output):
    """The last value inside every limit: an event and its data are two levels of the 64."""
    assert found(logged(output)) == []


@pytest.mark.parametrize(
    ("output", "error"),
    [
        (2**64, "int_64_bits"),
        (-(2**63) - 1, "int_64_bits"),
        (float("nan"), "finite_number"),
        (float("-inf"), "finite_number"),
        (nested(63), "too_deep"),
    ],
)
def test_what_json_allows_and_the_wire_does_not(output, error):
    """The worker would find these undecodable."""
    details = check(logged({"a": [0, output]} if error != "too_deep" else output))
    assert [detail.type for detail in details] == [error]
    if error != "too_deep":
        assert details[0].loc == ("data", "output_full", "a", 1)


def test_what_cannot_be_written_at_all():
    """A lone surrogate has no UTF-8 form, and is found before it is sent."""
    assert [detail.type for detail in check(logged("\ud800"))] == ["json_unwritable"]
    assert [detail.type for detail in check({"data": {1, 2}})] == ["json_unwritable"]


def test_an_overflowing_number_of_another_publisher():
    """1e400 is JSON, and no finite double."""
    body = logged(7).to_json().replace(b'"output_full":7', b'"output_full":1e400')
    assert [detail.type for detail in check_body(body)] == ["finite_number"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "json_invalid"),
        (b"{", "json_invalid"),
        (b"\xff", "json_invalid"),
        (b"[]", "json_type"),
        (b"[" * 100_000, "json_invalid"),
        (b" " * (MAX_BODY_BYTES + 1), "too_large"),
    ],
)
def test_bodies_that_are_no_event(body, error):
    """Whatever the bytes are, the answer is an error and never an exception."""
    assert [detail.type for detail in check_body(body)] == [error]


def test_too_many_values(monkeypatch):
    """Half a million values make too many objects for a worker; a thousand do in this test."""
    monkeypatch.setattr(checking, "MAX_JSON_VALUES", 1000)
    around = 14  # the event, its attributes, its data and the members of that
    assert found(logged([0] * (1000 - around))) == []
    assert found(logged([0] * (1001 - around))) == [((), "too_many_values")]


def test_a_misspelt_type_is_found_with_a_suggestion():
    """The publisher learns of it at once, not from a dead letter."""
    event = logged(1).model_copy(update={"type": "execution.loged"})
    (detail,) = check(event)
    assert detail.loc == ("type",)
    assert "did you mean 'execution.logged'" in detail.msg


def test_a_mapping_is_checked_as_it_would_be_sent():
    """Events from elsewhere, such as a line of a file, need not be models."""
    raw = json.loads(logged({"x": 1}).to_json())
    assert check(raw) == []
    del raw["id"]
    raw["data"]["step_number"] = "1"
    assert found(raw) == [(("id",), "missing")]  # data is looked at once the envelope is right


def test_errors_are_bounded():
    """A hostile event cannot make a diagnosis that is larger than itself."""
    raw = json.loads(logged(1).to_json())
    raw["data"] |= {f"member-{i}": i for i in range(200)}
    details = check(raw)
    assert len(details) == MAX_ERRORS + 1
    text = "200 errors in all, 100 of them kept"
    assert details[-1] == ErrorDetail(loc=(), msg=text, type="more_errors")
    raw["data"] |= {"x" * 1000 + str(i): i for i in range(200)}
    details = check(raw)
    size = sum(len(detail.model_dump_json()) for detail in details[:-1])
    assert size <= MAX_ERRORS_BYTES
    assert details[-1].type == "more_errors"


def test_an_error_does_not_repeat_the_value():
    """Diagnoses go to logs and dead letters; what an event holds does not."""
    raw = json.loads(logged(1).to_json())
    raw["data"] |= {"status": "s3cret", "duration_ms": "s3cret", "timestamp": "s3cret"}
    assert len(check(raw)) == 3
    assert "s3cret" not in repr(check(raw))


def test_a_detail_reads_as_a_sentence():
    """Place first, then what is wrong."""
    detail = ErrorDetail(loc=("data", "steps", 3, "state"), msg="Field required", type="missing")
    assert str(detail) == "data.steps.3.state: Field required"
    assert str(ErrorDetail(loc=(), msg="the body is empty", type="x")) == "the body is empty"
