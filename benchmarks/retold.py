"""Events of every family: the examples of its contracts, told again and again with new ids.

Promises one valid example of each type in every telling, in the order of their times, and UUIDs that mean the same
within a telling and are new in the next: entities meet all their changes, and no fact is a duplicate. Types whose one
message becomes many rows are left out.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from itertools import count, islice

import orjson

from benchmarks.events import Event
from benchmarks.load import family_of
from contracts.example_files import examples
from contracts.identifiers import uuid7
from contracts.registry import contract_types
from worker.families import plan

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_AGENT = re.compile(r'"agent_id":"[^"]*"')
_AGENTS = 40


def retold(families: Collection[str], number: int) -> list[Event]:
    """So many events of these families. Raises LookupError where no example belongs to them."""
    return list(islice(_tellings(families), number))


def _tellings(families: Collection[str]) -> Iterator[Event]:
    text = orjson.dumps(_story(families)).decode()
    for at in count():
        new: defaultdict[str, str] = defaultdict(lambda: str(uuid7()))
        telling = _UUID.sub(lambda found, new=new: new[found[0]], text)  # type: ignore[misc] # a default binds it
        yield from orjson.loads(_AGENT.sub(f'"agent_id":"agent-{at % _AGENTS}"', telling))


def _story(families: Collection[str]) -> list[Event]:
    chosen = {name for name in contract_types() if family_of(name) in families}
    several = {
        name
        for entity in plan().entity_order
        for name, fold in entity.folds.items()
        if fold.parts is not None
    }
    first: dict[str, Event] = {}
    for example in examples():
        if example.valid and example.type in chosen - several:
            first.setdefault(example.type, example.event)
    if not first:
        raise LookupError(f"no example belongs to {', '.join(families)}")
    return sorted(first.values(), key=lambda event: event["time"])
