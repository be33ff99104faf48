"""Every example does what its name says."""

import pytest
from pydantic import ValidationError

from contracts import Envelope, PersistenceConfirmed, check
from contracts.checking import error_details
from contracts.example_files import Example, examples, invalid_examples, valid_examples
from contracts.registry import contract_types

CONFIRMED = PersistenceConfirmed.event_type


def _errors(example: Example) -> list[tuple[tuple[str | int, ...], str]]:
    if example.type != CONFIRMED:
        found = check(example.event)
    else:  # agents read it, no family takes it: the registry does not know it
        try:
            PersistenceConfirmed.model_validate(Envelope.model_validate(example.event).data)
            found = []
        except ValidationError as error:
            found = error_details(error, ("data",))
    return [(detail.loc, detail.type) for detail in found]


@pytest.mark.parametrize("event_type", [*contract_types(), CONFIRMED])
def test_an_example_gives_exactly_the_errors_it_names(event_type):
    """Valid ones pass; invalid ones fail at the named places, in that order, and nowhere else."""
    own = [example for example in examples() if example.type == event_type]
    assert {e.name: _errors(e) for e in own} == {e.name: list(e.errors) for e in own}
    assert {e.event["type"] for e in own} == {event_type}
    assert all(e.valid == e.name.startswith("valid-") for e in own)


def test_every_type_has_examples():
    """A type without examples would go without tests, documents and load."""
    for event_type in (*contract_types(), CONFIRMED):
        names = {example.name for example in valid_examples(event_type)}
        assert {"valid-minimal", "valid-full"} <= names, event_type
        assert len(invalid_examples(event_type)) >= 3, event_type


def test_no_example_is_of_a_type_that_does_not_exist():
    """A folder with a misspelt name would be read by nobody."""
    assert {example.type for example in examples()} == {*contract_types(), CONFIRMED}


def test_the_full_example_gives_every_member():
    """The full example shows all that a contract knows, so that documents and load leave nothing out."""
    for event_type, (_, contract) in contract_types().items():
        full = next(e for e in valid_examples(event_type) if e.name == "valid-full")
        assert set(full.event["data"]) == set(contract.model_fields), event_type
