"""The examples in `contracts/examples/<type>/`: they feed the tests, the documents and the load.

`valid-*.json` holds a whole event. `invalid-*.json` holds {"event": a whole event, "errors": [{"loc", "type"}]} with
every error that the contract has to find, in order.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class Example:
    """One example: an event of a type, and the errors that it must give as (loc, type); none if it is valid."""

    type: str
    name: str
    event: dict[str, Any]
    errors: tuple[tuple[tuple[str | int, ...], str], ...] = ()

    @property
    def valid(self) -> bool:
        """Whether the contract has to accept it."""
        return not self.errors


@cache
def examples() -> tuple[Example, ...]:
    """Every example, by type and name."""
    return tuple(_read())


def valid_examples(event_type: str) -> list[Example]:
    """The examples that the contract of a type has to accept."""
    return [example for example in examples() if example.type == event_type and example.valid]


def invalid_examples(event_type: str) -> list[Example]:
    """The examples that the contract of a type has to refuse."""
    return [example for example in examples() if example.type == event_type and not example.valid]


def _read() -> Iterator[Example]:
    root = resources.files("contracts") / "examples"
    for folder in sorted(root.iterdir(), key=lambda entry: entry.name):
        if not folder.is_dir():
            continue
        for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
            content = json.loads(file.read_text(encoding="utf-8"))
            name = file.name.removesuffix(".json")
            if name.startswith("valid-"):
                yield Example(folder.name, name, content)
            else:
                errors = tuple((tuple(e["loc"]), e["type"]) for e in content["errors"])
                yield Example(folder.name, name, content["event"], errors)
