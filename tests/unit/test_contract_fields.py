"""Values that pass fit their columns unchanged; nothing is guessed from another JSON type."""

import json
import math
import sys
from decimal import Decimal
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ConfigDict, ValidationError, create_model

from contracts import check, uuid7
from contracts.fields import (
    Attempt,
    Cost,
    Count,
    DecimalNumber,
    JsonObject,
    Key,
    Milliseconds,
    Money,
    Name,
    Percentage,
    Positive,
    Real,
    ShortName,
    Size,
    Slug,
    Tenant,
    Text,
    Timestamp,
)
from contracts.identifiers import uuid7_time_ms
from contracts.registry import contract_types
from contracts.task_lifecycle import TaskCreated, TaskDependsOn
from contracts.trajectory import GRPOConfig, TrainingProgressed, TrainingQueued, TrajectoryRecorded

WRONG_TYPE = {
    Key: [1, 1.0, True, [], {}],
    Timestamp: [1, 1.5, True, [], {}],
    Tenant: [1, True, [], {}],
    Slug: [1, True, [], {}],
    Text: [1, True, [], {}],
    Name: [1, True, [], {}],
    Money: ["1", True, [], {}],
    Cost: ["1", True, [], {}],
    DecimalNumber: ["1", True, [], {}],
    Percentage: ["1", True, 1.0, [], {}],
    ShortName: [1, True, [], {}],
    Size: ["1", True, 1.0, [], {}],
    Real: ["1", True, [], {}],
    Count: ["1", True, 1.0, [], {}],
    Positive: ["1", True, 1.0, [], {}],
    Milliseconds: ["1", True, 1.0, [], {}],
    Attempt: ["1", True, 1.0, [], {}],
    JsonObject: ["{}", 1, True, [], [["a", 1]]],
}


@cache
def model(kind):
    return create_model("Model", __config__=ConfigDict(strict=True), x=(kind, ...))


def passes(kind, value):
    try:
        model(kind).model_validate({"x": value})
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("kind", WRONG_TYPE)
def test_no_value_is_read_as_another_type(kind):
    """No "5" for 5, no true for 1, no 5.0 for 5."""
    assert [value for value in WRONG_TYPE[kind] if passes(kind, value)] == []


@pytest.mark.parametrize("value", [None, "2026-11-21T20:10:04Z"])
def test_a_value_where_an_object_is_needed(value):
    """Steps and examples are closed objects with typed members, checked as strictly as the rest."""
    with pytest.raises(ValidationError):
        TrajectoryRecorded(
            job_id=uuid7(), agent_id="a", query="q", reward=1, steps=[{"state": value}]
        )


@pytest.mark.parametrize(
    ("kind", "inside", "outside"),
    [
        (Count, [0, 2**31 - 1], [-1, 2**31]),
        (Positive, [1, 2**31 - 1], [0, 2**31]),
        (Attempt, [1, 2**31 - 1], [0, 2**31]),
        (Milliseconds, [0, 2**63 - 1], [-1, 2**63]),
        (Name, ["a", "ß" * 255], ["", "a" * 256]),
        (Text, ["a", "a" * 100_000], [""]),
        (Slug, ["infra", "a1-b_c", "x" * 50], ["", "Infra", "-a", "a b", "a\n", "x" * 51, "é"]),
        (Tenant, ["a", "A_b-9", "x" * 64], ["", "a b", "x" * 65, "a/b", "a\n"]),
        (Percentage, [0, 100], [-1, 101]),
        (ShortName, ["a", "ß" * 100], ["", "a" * 101]),
        (Size, [0, 2**63 - 1], [-1, 2**63]),
        (Cost, [0, 0.000001, 9999.999999], [-0.01, 0.0000001, 10_000, math.nan, math.inf]),
        (DecimalNumber, [0, 2**63, -1.5, 1e300], [math.inf, -math.inf, math.nan]),
        (Real, [0, -1.5, sys.float_info.max], [math.inf, -math.inf, math.nan]),
        (
            Money,
            [0, 0.000001, 99999999.999999],
            [-0.01, 0.0000001, 100_000_000, math.nan, math.inf],
        ),
    ],
)
def test_limits_are_where_the_column_ends(kind, inside, outside):
    """The last value that fits passes, the first that does not is refused."""
    assert [value for value in inside if not passes(kind, value)] == []
    assert [value for value in outside if passes(kind, value)] == []


@given(st.integers(0, 10**14 - 1))
@settings(deadline=None)  # a busy machine is no error
def test_an_amount_goes_over_the_wire_unchanged(millionths):
    """Every NUMERIC(14,6) survives being written as a JSON number and read as a double."""
    amount = Decimal(millionths) / 1_000_000
    event = TrainingProgressed(job_id=uuid7(), current_iteration=1, cost_usd=amount).event(
        source="/a"
    )
    again = TrainingProgressed.model_validate(json.loads(event.to_json())["data"])
    assert again.cost_usd == amount


def test_defaults_are_those_of_the_data_model():
    """Absent and null give the same value."""
    for given_ in ({}, {"priority": None, "max_retries": None, "timeout_seconds": None}):
        task = TaskCreated(task_id=uuid7(), request_text="x", **given_)
        assert (task.priority, task.max_retries, task.timeout_seconds) == (5, 3, 300)
    pair = TaskDependsOn(task_id=uuid7(), depends_on_task_id=uuid7(), dependency_type=None)
    assert pair.dependency_type == "sequential"


def test_a_training_job_without_settings_has_the_usual_ones():
    """GRPOConfig fills in what a publisher leaves out."""
    assert GRPOConfig().model_dump() == {
        "n_iterations": 1000,
        "batch_size": 16,
        "n_trajectories_per_query": 8,
        "learning_rate": 1e-4,
        "max_budget_usd": 100.0,
        "checkpoint_interval": 10,
        "max_steps_per_trajectory": 20,
        "gamma": 0.99,
    }
    job = TrainingQueued(job_id=uuid7(), agent_id="a", total_iterations=1, config={"gamma": None})
    assert job.config == GRPOConfig()


def test_keys_of_one_process_grow():
    """Later keys are larger, so that they sort by time within a process."""
    keys = [uuid7() for _ in range(2000)]
    assert keys == sorted(set(keys))
    assert {key.version for key in keys} == {7}
    assert {key.variant for key in keys} == {"specified in RFC 4122"}


@given(st.integers(0, 2**48 - 1))
@settings(deadline=None)  # a busy machine is no error
def test_a_key_holds_the_time_it_is_given(milliseconds):
    """The time of a key can be chosen, for rows of the past, and read again."""
    key = uuid7(milliseconds)
    assert uuid7_time_ms(key) == milliseconds
    assert (key.version, key.variant) == (7, "specified in RFC 4122")
    assert key != uuid7(milliseconds)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text()
    # Each digit string of a double is its own: no rounding between the two sides.
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4)
    ),
    max_leaves=8,
)


@given(JSON)
def test_open_json_goes_over_the_wire_unchanged(value):
    """What a publisher puts into an open member is what the worker reads."""
    contract = contract_types()["execution.logged"][1]
    event = contract(
        task_id=uuid7(),
        step_number=1,
        agent_type="a",
        action="b",
        status="failed",
        output_full=value,
    ).event(source="/a")
    assert check(event) == []
    assert json.loads(event.to_json())["data"]["output_full"] == value
