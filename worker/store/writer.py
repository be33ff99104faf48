"""Writes the messages of a batch into their tables: one statement a table (and again for parts), in one order.

Promises one outcome a message: stored now, stored before, or in conflict with what is stored. A message that stands for
several is stored with all its parts, or not at all. Rows are written in key order and tables in one order, so that two
workers lock in the same order. Entities come last: two transactions that name the same new one wait for each other
there, and not before (parts follow the entities of what they are parts of). Nothing here commits.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

import asyncpg

from worker.errors import Invalid
from worker.message import Accepted, Message, Outcome, Rejected
from worker.store.declaration import Parent
from worker.store.encryption import Cipher
from worker.store.entities import EntityWriter
from worker.store.facts import fact_inserter, lifecycle_inserter
from worker.store.plan import Plan

PARTS_AT_ONCE = 5_000
"""Parts that are written together, or as many as the one message has that goes past it."""


class Writer:
    """Every statement that the declared tables need, made once."""

    def __init__(self, plan: Plan, cipher: Cipher | None = None) -> None:
        self._plan = plan
        self.declared_facts = plan.fact_order
        self._lifecycle = lifecycle_inserter(plan.entities, cipher)
        self._facts = {fact.event: fact_inserter(fact) for fact in plan.fact_order}
        self._entities = [EntityWriter(entity, cipher) for entity in plan.entity_order]

    async def write(
        self, connection: asyncpg.Connection, messages: Sequence[Message]
    ) -> list[Outcome]:
        """Write these messages in the open transaction; one outcome for each, in no particular order.

        Raises Invalid where a part of a message is in conflict: the message is refused as a whole.
        """
        outcomes, fresh = await self._write(connection, messages)
        for parts in _groups(self._parts(fresh)):
            found, _ = await self._write(connection, parts)
            _refuse(found)
        return outcomes

    async def _write(
        self, connection: asyncpg.Connection, messages: Iterable[Message]
    ) -> tuple[list[Outcome], list[Message]]:
        """One outcome a message, and the messages that change entities and are new."""
        by_event: dict[str, list[Message]] = defaultdict(list)
        changes: list[Message] = []
        for message in messages:
            if message.type in self._plan.entities:
                changes.append(message)
            else:
                by_event[message.type].append(message)
        outcomes, fresh = await self._lifecycle.insert(connection, changes)
        stored: dict[str, list[Message]] = {}
        for event, inserter in self._facts.items():
            if event in by_event:
                found, _ = await inserter.insert(connection, by_event[event])
                # Duplicates, too: the same said at an earlier time makes a placeholder older, whichever came first.
                stored[event] = [one.message for one in found if isinstance(one, Accepted)]
                outcomes += found
        await self._write_entities(connection, fresh, stored)
        return outcomes, fresh

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
        by_type: dict[str, list[Message]] = defaultdict(list)
        for message in changes:
            by_type[message.type].append(message)
        for event, same in by_type.items():
            entity = self._plan.entities[event]
            changes_of[entity.table.name] += same
            sets = entity.folds[event].sets
            _name_parents(named, (p for p in entity.parents if p.column in sets), same)
        for event, messages in facts.items():
            _name_parents(named, self._plan.facts[event].parents, messages)
        for writer in self._entities:
            name = writer.entity.table.name
            await writer.write(connection, changes_of.get(name, ()), named.get(name, {}))


def _name_parents(
    named: dict[str, dict[tuple[Any, str], datetime]],
    parents: Iterable[Parent],
    messages: Sequence[Message],
) -> None:
    """Remember which entities messages of one type name, and the earliest time at which each was named."""
    for parent in parents:
        times = named[parent.table.name]
        for message, key in zip(
            messages, map(attrgetter(f"fields.{parent.column}"), messages), strict=True
        ):
            if key is not None:
                place = (key, message.tenant)
                known = times.get(place)
                if known is None or message.time < known:
                    times[place] = message.time


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


def _refuse(outcomes: Iterable[Outcome]) -> None:
    """Raise Invalid where a part is refused."""
    for outcome in outcomes:
        if isinstance(outcome, Rejected):
            raise Invalid(f"its {outcome.type}: {outcome.errors[0]['msg']}", reason=outcome.reason)
