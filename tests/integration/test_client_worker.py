"""Client and worker agree: what the examples promise is what a publisher hears from a real worker."""

import asyncio

import pytest

from contracts import Event, check
from contracts.client import Publisher, Rejected
from contracts.example_files import Example, examples
from contracts.registry import contract_types


def sendable(valid: bool) -> list[tuple[Example, Event]]:
    """The examples that can be put into an Event, each in a tenant of its own, so that none meets another's key."""
    found = []
    for number, example in enumerate(examples()):
        # Where the envelope is wrong, no client builds such an event.
        buildable = "data" in example.event and all(loc[0] == "data" for loc, _ in example.errors)
        if example.type in contract_types() and example.valid is valid and buildable:
            event = Event.model_validate({**example.event, "tenantid": f"tenant-{number}"})
            found.append((example, event))
    return found


@pytest.mark.parametrize("batch", [False, True])
async def test_every_valid_example_is_persisted(amqp_url, worker, batch):
    """Twice: the second time it is a duplicate, whatever the type."""
    events = [event for _, event in sendable(valid=True)]
    assert len(events) > 30
    async with Publisher(amqp_url, batch=batch) as publisher:
        first = await asyncio.gather(*map(publisher.persisted, events))
        second = await asyncio.gather(*map(publisher.persisted, events))
    assert dict(zip(events_named(events), first, strict=True)) == dict.fromkeys(
        events_named(events), "persisted"
    )
    assert set(second) == {"duplicate"}


def events_named(events: list[Event]) -> list[str]:
    return [f"{event.type} {event.id}" for event in events]


@pytest.mark.parametrize("batch", [False, True])
async def test_every_invalid_example_is_rejected_with_its_errors(amqp_url, worker, batch):
    """The worker tells a publisher the same errors as `contracts.check` does before it is sent."""
    cases = sendable(valid=False)
    assert len(cases) > 50
    async with Publisher(amqp_url, batch=batch, validate=False) as publisher:
        calls = (publisher.persisted(event) for _, event in cases)
        results = await asyncio.gather(*calls, return_exceptions=True)
    for (example, event), result in zip(cases, results, strict=True):
        assert isinstance(result, Rejected), f"{example.type}/{example.name}: {result!r}"
        assert result.reason == "invalid"
        found = [(detail.loc, detail.type) for detail in result.errors]
        assert found == list(example.errors), f"{example.type}/{example.name}"
        assert list(result.errors) == check(event)
