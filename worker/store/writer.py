"""Writes the messages of a batch into their tables: one statement a table, all families in one order.

Promises one verdict a message: stored now, stored before, or in conflict with what is stored. A message that stands for
several is stored with all its parts, or not at all. Rows are written in key order and tables in one order, so that two
workers lock in the same order. Nothing here commits.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from worker.errors import Invalid
from worker.message import Message, Rejected
from worker.store.declaration import Parent
from worker.store.entities import EntityWriter
from worker.store.facts import Verdict, fact_inserter, lifecycle_inserter
from worker.store.plan import Plan

PARTS_AT_ONCE = 5_000
"""Parts that are written together, or as many as the one message has that goes past it."""


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
        verdicts, fresh = await self._write(connection, messages)
        for parts in _groups(self._parts(fresh)):
            found, _ = await self._write(connection, parts)
            _refuse(found)
        return verdicts

    async def _write(
        self, connection: asyncpg.Connection, messages: Iterable[Message]
    ) -> tuple[list[Verdict], list[Message]]:
        """One verdict a message, and the messages that change entities and are new."""
        by_event: dict[str, list[Message]] = defaultdict(list)
        changes: list[Message] = []
        for message in messages:
            if message.type in self._plan.entities:
                changes.append(message)
            else:
                by_event[message.type].append(message)
        verdicts, fresh = await self._lifecycle.insert(connection, changes)
        await self._write_entities(connection, fresh, by_event)
        for event, inserter in self._facts.items():
            if event in by_event:
                verdicts += (await inserter.insert(connection, by_event[event]))[0]
        return verdicts, fresh

    def _parts(self, messages: Iterable[Message]) -> Iterator[Sequence[Message]]:
        """The parts of each message that stands for several."""
        for message in messages:
            parts = self._plan.entities[message.type].folds[message.type].parts
            if parts:
                yield parts(message)

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


def _groups(many: Iterable[Sequence[Message]]) -> Iterator[list[Message]]:
    """Parts in groups of a bounded size, each made when it is needed: a body of graphs is many times as many messages."""
    group: list[Message] = []
    for parts in many:
        group += parts
        if len(group) >= PARTS_AT_ONCE:
            yield group
            group = []
    if group:
        yield group


def _refuse(verdicts: Iterable[Verdict]) -> None:
    """Raise Invalid where a part is refused."""
    for verdict in verdicts:
        if isinstance(verdict, Rejected):
            raise Invalid(f"its {verdict.type}: {verdict.errors[0]['msg']}", reason=verdict.reason)
