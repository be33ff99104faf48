"""Writes the messages of a batch into their tables: one statement a table, all families in one order.

Promises one verdict a message: stored now, stored before, or in conflict with what is stored. A message that stands for
several is stored with all its parts, or not at all. Rows are written in key order and tables in one order, so that two
workers lock in the same order. Nothing here commits.
"""

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from worker.errors import Invalid
from worker.message import Message, Rejected
from worker.store.declaration import Parent
from worker.store.entities import EntityWriter
from worker.store.facts import Verdict, fact_inserter, lifecycle_inserter
from worker.store.plan import Plan


class Writer:
    """Every statement that the declared tables need, made once."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._lifecycle = lifecycle_inserter(plan.entities)
        self._facts = {fact.event: fact_inserter(fact) for fact in plan.fact_order}
        self._entities = [EntityWriter(entity) for entity in plan.entity_order]

    async def write(
        self, connection: asyncpg.Connection, messages: Sequence[Message]
    ) -> list[Verdict]:
        """Write these messages in the open transaction; one verdict for each, in no particular order.

        Raises Invalid where a part of a message is in conflict: the message is refused as a whole.
        """
        changes, facts = self._by_table(messages)
        verdicts, fresh = await self._lifecycle.insert(connection, changes)
        parts = [part for message in fresh for part in self._parts(message)]
        if parts:
            fresh += await self._write_part_events(connection, parts, facts)
        await self._write_entities(connection, fresh, facts)
        of_others = set(map(id, parts))
        for event, inserter in self._facts.items():
            if event in facts:
                found, _ = await inserter.insert(connection, facts[event])
                verdicts += _own(facts[event], found, of_others)
        return verdicts

    def _by_table(
        self, messages: Iterable[Message]
    ) -> tuple[list[Message], dict[str, list[Message]]]:
        """The messages that change entities, and those that are rows of their own by type."""
        changes: list[Message] = []
        facts: dict[str, list[Message]] = defaultdict(list)
        for message in messages:
            if message.type in self._plan.entities:
                changes.append(message)
            else:
                facts[message.type].append(message)
        return changes, facts

    def _parts(self, message: Message) -> Sequence[Message]:
        parts = self._plan.entities[message.type].folds[message.type].parts
        return parts(message) if parts else ()

    async def _write_part_events(
        self,
        connection: asyncpg.Connection,
        parts: Sequence[Message],
        facts: dict[str, list[Message]],
    ) -> list[Message]:
        """Record what the parts change, put those that are rows of their own to `facts`; the changes that are new."""
        changes, rows = self._by_table(parts)
        for event, more in rows.items():
            facts[event] += more
        verdicts, fresh = await self._lifecycle.insert(connection, changes)
        _own(changes, verdicts, set(map(id, changes)))
        return fresh

    async def _write_entities(
        self,
        connection: asyncpg.Connection,
        changes: Iterable[Message],
        facts: Mapping[str, Sequence[Message]],
    ) -> None:
        """Fold fresh changes into their rows, and make placeholders for entities that were only named."""
        changes_of: dict[str, list[Message]] = defaultdict(list)
        named: dict[str, dict[tuple[Any, str], datetime]] = defaultdict(dict)
        for message in changes:
            entity = self._plan.entities[message.type]
            changes_of[entity.table.name].append(message)
            sets = entity.folds[message.type].sets
            _name_parents(named, (p for p in entity.parents if p.column in sets), message)
        for event, messages in facts.items():
            for message in messages:
                _name_parents(named, self._plan.facts[event].parents, message)
        for writer in self._entities:
            name = writer.entity.table.name
            await writer.write(connection, changes_of.get(name, ()), named.get(name, {}))


def _name_parents(
    named: dict[str, dict[tuple[Any, str], datetime]], parents: Iterable[Parent], message: Message
) -> None:
    """Remember which entities a message names, and the earliest time at which one was named."""
    for parent in parents:
        key = getattr(message.fields, parent.column)
        if key is not None:
            times = named[parent.table.name]
            place = (key, message.tenant)
            times[place] = min(times.get(place, message.time), message.time)


def _own(
    messages: Sequence[Message], verdicts: Sequence[Verdict], parts: Container[int]
) -> list[Verdict]:
    """The verdicts on messages that came by themselves; a part that is refused refuses the message that it is a part of."""
    own = []
    for message, verdict in zip(messages, verdicts, strict=True):
        if id(message) not in parts:
            own.append(verdict)
        elif isinstance(verdict, Rejected):
            raise Invalid(f"its {message.type}: {verdict.errors[0]['msg']}", reason=verdict.reason)
    return own
