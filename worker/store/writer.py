"""Writes the messages of a batch into their tables: one statement a table, all families in one order.

Promises one verdict a message: stored now, stored before, or in conflict with what is stored. Rows are written in key
order and tables in one order, so that two workers lock in the same order. Nothing here commits.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from worker.message import Message
from worker.store.declaration import Parent
from worker.store.encryption import Cipher
from worker.store.entities import EntityWriter
from worker.store.facts import Verdict, fact_inserter, lifecycle_inserter
from worker.store.plan import Plan


class Writer:
    """Every statement that the declared tables need, made once."""

    def __init__(self, plan: Plan, cipher: Cipher | None = None) -> None:
        self._plan = plan
        self._lifecycle = lifecycle_inserter(plan.entities, cipher)
        self._facts = {fact.event: fact_inserter(fact) for fact in plan.fact_order}
        self._entities = [EntityWriter(entity, cipher) for entity in plan.entity_order]

    async def write(
        self, connection: asyncpg.Connection, messages: Sequence[Message]
    ) -> list[Verdict]:
        """Write these messages in the open transaction; one verdict for each, in no particular order."""
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
        return verdicts

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
