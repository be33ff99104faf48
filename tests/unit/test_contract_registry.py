"""One place for every type, and a package that agents can install alone."""

import ast
import sys
from pathlib import Path

import pytest

import contracts
from contracts.confirmation import PersistenceConfirmed, routing_key
from contracts.envelope import EventData
from contracts.registry import (
    ContractFamily,
    RegistryError,
    _check_routes,
    _claim,
    contract_types,
    families,
)

WIRE = {
    "task-lifecycle": {
        *("task.created", "task.approved", "task.rejected", "task.started", "task.completed"),
        *("task.failed", "task.retrying", "task.cancelled", "task.depends_on"),
    },
    "execution-log": {"execution.logged"},
    "trajectory": {
        *("trajectory.recorded", "training.queued", "training.started", "training.progressed"),
        *("training.completed", "training.failed", "training.cancelled"),
        "policy.checkpoint_saved",
    },
    "workflow": {
        *("workspace.created", "workspace.updated", "workspace.heartbeat", "workspace.archived"),
        *("workspace.restored", "workspace.deleted", "project.created", "project.updated"),
        *("run.created", "run.planning", "run.started", "run.paused", "run.waiting_approval"),
        *("run.resumed", "run.heartbeat", "run.completed", "run.failed", "run.measured"),
        *("step.created", "step.started", "step.progressed", "step.paused"),
        *("step.waiting_approval", "step.resumed", "step.completed", "step.failed"),
        *("step.skipped", "dag.defined", "dag.node_added", "dag.node_changed", "dag.edge_added"),
        *("checkpoint.saved", "message.sent", "cost.recorded", "approval.requested"),
        *("approval.resolved", "branch.created", "file.recorded"),
    },
    "metric": {"metric.recorded"},
}


def test_every_type_of_the_wire_is_there():
    """Types are a promise to publishers: they may be added, and never go."""
    for family, types in WIRE.items():
        assert set(families()[family].types) >= types
    assert contract_types()["training.queued"][0].name == "trajectory"


class Made(EventData):
    """A type of these tests."""

    event_type = "thing.made.whole"


@pytest.mark.parametrize("key", ["thing.#", "thing.*.whole", "thing.made.whole", "#", "*.made.#"])
def test_a_type_must_reach_the_queue_of_its_family(key):
    """Topic bindings as RabbitMQ reads them."""
    _check_routes({"thing": ContractFamily("thing", (key,), (Made,))})


@pytest.mark.parametrize("key", ["thing.*", "thing.made", "made.#", "thing", "thing.made.whole.*"])
def test_a_type_that_would_reach_no_queue_is_found_at_the_start(key):
    """Else its messages would become dead letters in production."""
    with pytest.raises(RegistryError, match="would reach the queues"):
        _check_routes({"thing": ContractFamily("thing", (key,), (Made,))})


def test_a_type_that_would_reach_two_queues_is_found_at_the_start():
    """Else one of the two would reject each of its messages."""
    wide = ContractFamily("wide", ("thing.made.#",), ())
    with pytest.raises(RegistryError, match="would reach the queues"):
        _check_routes({"thing": ContractFamily("thing", ("thing.#",), (Made,)), "wide": wide})


def test_confirmations_belong_to_no_family():
    """Agents read them; a worker that took them from a queue would answer itself."""
    assert PersistenceConfirmed.event_type not in contract_types()
    assert routing_key("trajectory", "persisted", "acme") == "trajectory.persisted.acme"


def test_keys_are_those_of_the_data_model():
    """Only facts that carry a key have one of their own; the rest goes by the event's id."""
    found = {name: c.key_fields for name, (_, c) in contract_types().items() if c.key_fields}
    assert {name: found[name] for name in found if contract_types()[name][0].name in WIRE} == {
        "execution.logged": ("log_id",),
        "trajectory.recorded": ("trajectory_id",),
        "policy.checkpoint_saved": ("checkpoint_id",),
        "task.depends_on": ("task_id", "depends_on_task_id"),
        "run.measured": ("measurement_id",),
        "dag.edge_added": ("from_node_id", "to_node_id"),
        "checkpoint.saved": ("checkpoint_id",),
        "message.sent": ("message_id",),
        "cost.recorded": ("cost_id",),
        "branch.created": ("branch_id",),
        "file.recorded": ("file_id",),
        "metric.recorded": ("metric_id",),
    }
    for name, fields in found.items():
        assert set(fields) <= set(contract_types()[name][1].model_fields)


def test_nothing_may_be_claimed_twice():
    """A type, a routing key or a family's name in two modules stops the program when it starts."""

    class Again(EventData):
        event_type = Made.event_type

    owners: dict[str, str] = {}
    _claim(ContractFamily("thing", ("thing.#",), (Made,)), owners)
    for other in (
        ContractFamily("other", ("other.#",), (Made,)),
        ContractFamily("other", ("thing.#",), ()),
        ContractFamily("third", ("third.#",), (Made, Again)),
    ):
        with pytest.raises(RegistryError):
            _claim(other, dict(owners))


def modules():
    root = Path(contracts.__file__).parent
    return [path for path in root.rglob("*.py") if path != root / "client.py"]


def imported(path):
    """The top names of what a module imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }


def test_contracts_need_nothing_but_pydantic():
    """Agents install this package alone; only the client needs a library for AMQP."""
    allowed = {"contracts", "pydantic", "pydantic_core", "typing_extensions"}
    assert len(modules()) > 5
    for path in modules():
        assert imported(path) - set(sys.stdlib_module_names) <= allowed, path


def test_every_contract_explains_itself():
    """The docstring and the descriptions of members are the documentation."""
    for name, (_, contract) in contract_types().items():
        assert contract.__doc__, name
        assert contract.__doc__ != EventData.__doc__, name
        for member, field in contract.model_fields.items():
            assert field.description, (name, member)
            open_json = "dict[str" in str(field.annotation) or field.annotation is object
            assert not open_json or f"`{member}`" in contract.__doc__, (name, member)
