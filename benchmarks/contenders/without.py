"""The worker without one of its design choices, so that each is measured on and off.

`CHOICES` is the one list. A choice that is a setting is undone by the setting; another by a change to the running
program, made by this module before it runs the worker's own command: `python -m benchmarks.contenders.without NAME run …`.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import types
from sqlalchemy.dialects.postgresql import asyncpg

from benchmarks.contenders.contender import python
from benchmarks.contenders.ours import Ours
from benchmarks.load import Load
from benchmarks.services import Place


@dataclass(frozen=True)
class Choice:
    """What is undone, in words and by which means."""

    name: str
    text: str
    load: str = "logs"
    settings: Mapping[str, str] = field(default_factory=dict)
    undo: Callable[[], None] | None = None
    sql: str = ""
    """Run in the fresh database before the backlog is published."""


def _replace(owner: Any, name: str, value: Any) -> Any:
    """Put this in the place of a function; returns what was there, and raises AttributeError where nothing was."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    return before


# Each imports what it changes by itself, so that what the others change stays unloaded.


def _event_loop() -> None:
    from worker.cli import run  # noqa: PLC0415

    _replace(run, "_loop_factory", lambda: None)


def _collecting() -> None:
    from worker import app  # noqa: PLC0415

    _replace(app, "collect_seldom", lambda: None)


def _large_json() -> None:
    from worker.store import facts  # noqa: PLC0415

    _replace(facts, "_LARGE", sys.maxsize)


def _values() -> None:
    from worker import decode  # noqa: PLC0415

    _replace(decode, "_LARGE", sys.maxsize)


def _entities_last() -> None:
    from worker.store.writer import Writer  # noqa: PLC0415

    async def entities_first(self: Any, connection: Any, messages: Any) -> Any:
        given, facts = list(messages), defaultdict(list)
        for message in given:
            if message.type in self._facts:
                facts[message.type].append(message)
        await both(self, connection, (), facts)
        return await rows_first(self, connection, given)

    async def of_changes(self: Any, connection: Any, changes: Any, _facts: Any) -> None:
        await both(self, connection, changes, {})

    both = _replace(Writer, "_write_entities", of_changes)
    rows_first = _replace(Writer, "_write", entities_first)


def _row_by_row() -> None:
    from worker.store.facts import Inserter  # noqa: PLC0415

    async def one_by_one(self: Any, connection: Any, messages: Any) -> Any:
        outcomes, fresh = [], []
        for message in messages:
            outcome, new = await together(self, connection, [message])
            outcomes += outcome
            fresh += new
        return outcomes, fresh

    together = _replace(Inserter, "insert", one_by_one)


def _folding() -> None:
    from worker.store.entities import EntityWriter  # noqa: PLC0415

    async def one_by_one(self: Any, connection: Any, changes: Any, named: Any) -> None:
        for change in changes:
            await together(self, connection, [change], {})
        await together(self, connection, [], named)

    together = _replace(EntityWriter, "write", one_by_one)


def _json_arrays() -> None:
    from worker.store import bulk, entities, facts  # noqa: PLC0415

    def array(column: Any, values: Any, *, apart: bool = False) -> Any:  # noqa: ARG001 (as the one it replaces)
        if bulk.is_json(column):
            return [None if value is None else to_json(value) for value in values]
        if isinstance(column.type, types.String):
            return [None if value is None else str(value) for value in values]
        return list(values)

    def elements(at: int, column: Any, *, apart: bool) -> str:  # noqa: ARG001 (as above)
        kind = "text" if bulk.is_json(column) else column.type.compile(dialect=asyncpg.dialect())
        return f"unnest(${at}::{kind}[])"

    def value(_at: int, column: Any) -> str:
        return f'a."{column.name}"' + ("::jsonb" if bulk.is_json(column) else "")

    to_json = bulk._json  # noqa: SLF001 (the JSON of one value is no part of the choice)
    _replace(bulk, "_elements", elements)
    _replace(bulk, "_value", value)
    for module in (facts, entities):
        _replace(module, "array", array)


def _whole_deliveries() -> None:
    from worker.broker.tap import Tap  # noqa: PLC0415

    _replace(Tap, "_take_whole", lambda *_arguments: 0)


def _acknowledging() -> None:
    from worker.broker.consumer import Subscription  # noqa: PLC0415

    def one_by_one(self: Any, deliveries: Any) -> None:
        for delivery in deliveries:
            at_once(self, [delivery])

    at_once = _replace(Subscription, "acknowledge", one_by_one)


def _confirming() -> None:
    from worker.store import outbox  # noqa: PLC0415

    def one_by_one(outcomes: Any, reply_allowed: Any) -> dict[str, Any]:
        content = together(outcomes, reply_allowed)
        groups = [
            {**group, "items": [item]} for group in content["groups"] for item in group["items"]
        ]
        return {**content, "groups": groups}

    together = _replace(outbox, "payload", one_by_one)


CHOICES = (
    Choice("one-transaction", "one transaction in flight, not two", settings={"WORKER_TRANSACTIONS": "1"}),
    Choice("three-transactions", "three in flight", settings={"WORKER_TRANSACTIONS": "3"}),
    Choice("batches-of-100", "at most 100 messages a transaction, not 500", settings={"WORKER_BATCH_MESSAGES": "100"}),
    Choice("batches-of-2000", "at most 2,000", settings={"WORKER_BATCH_MESSAGES": "2000", "WORKER_PREFETCH": "8000"}),
    Choice("prefetch-of-100", "at most 100 deliveries in hand, not 2,000", settings={"WORKER_PREFETCH": "100"}),
    Choice("statement-a-row", "a statement for each row, not for each batch", undo=_row_by_row),
    Choice("driver-arrays", "columns as the driver's binary arrays, not as JSON", undo=_json_arrays),
    Choice("upsert-a-message", "an upsert for each event of an entity, not for each batch of them", "lifecycle", undo=_folding),
    Choice("confirmation-a-message", "a confirmation event for each message, not for each transaction", undo=_confirming),
    Choice("acknowledgement-a-message", "an acknowledgement for each message, not for each run of them", undo=_acknowledging),
    Choice("no-uvloop", "asyncio's own event loop, not uvloop", undo=_event_loop),
    Choice("collecting-often", "Python's own pace of looking for cycles", undo=_collecting),
    Choice("frame-by-frame", "deliveries read frame by frame, not whole where they came whole", undo=_whole_deliveries),
    Choice("json-together", "large JSON inside a JSON array, not value by value", "trajectories", undo=_large_json),
    Choice("json-as-values", "large JSON kept as values until it is written, not as text", "trajectories", undo=_values),
    Choice("entities-first", "entities before the rows that name them, not after", "trajectories", undo=_entities_last),
    Choice("no-steps-index", "no GIN index on the steps of trajectories", "trajectories", sql="DROP INDEX ix_trajectories_steps"),
)  # fmt: skip


@dataclass(frozen=True)
class Without(Ours):
    """The worker with one choice undone."""

    choice: Choice = Choice("", "")

    def can(self, load_name: str) -> bool:
        """Each is measured with the load on which it tells most."""
        return load_name == self.choice.load

    async def fill(self, place: Place, load: Load) -> None:
        """Publish the backlog, once the database is as the choice asks."""
        if self.choice.sql:
            await place.database.execute(self.choice.sql)
        await super().fill(place, load)

    def commands(self, place: Place, load: Load) -> list[tuple[list[str], Mapping[str, str]]]:
        """The worker's command, behind the change where there is one."""
        ours = replace(self, settings={**self.settings, **self.choice.settings})
        [(command, environment)] = super(Without, ours).commands(place, load)
        if self.choice.undo is None:
            return [(command, environment)]
        arguments = command[command.index("worker") + 1 :]
        return [(python("-m", __spec__.name, self.choice.name, *arguments), environment)]


WITHOUT = tuple(Without(f"without-{choice.name}", choice=choice) for choice in CHOICES)


def main() -> None:
    """Undo the choice that the first argument names, and run the worker's command with the others."""
    name = sys.argv.pop(1)
    [choice] = [choice for choice in CHOICES if choice.name == name]
    if choice.undo is not None:
        choice.undo()
    from worker.cli import main as command  # noqa: PLC0415

    command()


if __name__ == "__main__":
    main()
