"""A gap between contracts and tables stops the worker when it starts."""

from dataclasses import replace
from typing import Literal

import pytest

from contracts.envelope import EventData
from contracts.fields import Key
from contracts.registry import ContractFamily
from worker.errors import Misconfigured
from worker.families import families
from worker.store.declaration import Entity, Fact, Family, Fold
from worker.store.plan import make_plan


class Decided(EventData):
    """A type of these tests."""

    event_type = "approval.resolved"

    approval_id: Key
    status: Literal["approved", "postponed"] | None = None


def declared(event):
    """The declaration of an event's table."""
    for family in families().values():
        for table in family.tables:
            if event in ((table.event,) if isinstance(table, Fact) else table.folds):
                return family, table
    raise AssertionError(event)


def problems(family, table):
    with pytest.raises(Misconfigured) as error:
        make_plan([Family(family.contract, (table,), family.revision)])
    return str(error.value)


def test_a_status_that_a_member_may_say_needs_a_rank():
    """Else the first message that says it would end the worker."""
    _, table = declared("approval.resolved")
    folds = {"approval.resolved": Fold(status_member="status")}
    family = ContractFamily("approvals", ("approval.#",), (Decided,))
    one = Family(family, (Entity(table.name, table.table, folds, table.ranks),), "0007")
    assert "approval.resolved tells of postponed, which has no rank" in problems(one, one.tables[0])


def test_a_member_that_says_the_status_has_to_be_there():
    """A misspelt name is found at the start."""
    family, table = declared("dag.node_changed")
    folds = {**table.folds, "dag.node_changed": Fold(status_member="state")}
    assert "'state', which it does not know" in problems(family, replace(table, folds=folds))


def test_a_column_that_no_message_fills_has_to_say_so():
    """A nullable column too: it would end the worker at the first message."""
    family, fact = declared("checkpoint.saved")
    assert "checkpoints.archive_path has no source" in problems(family, replace(fact, later=()))


def test_a_key_column_takes_the_member_that_it_names():
    """`id` of the table is `run_id` of the message: a message that lacks it is found at the start."""
    family, table = declared("run.created")
    assert (table.key, table.key_member) == ("id", "run_id")
    wrong = replace(table, table=declared("step.created")[1].table, folds={"run.planning": Fold()})
    assert "run.planning does not name step_id" in problems(family, wrong)
