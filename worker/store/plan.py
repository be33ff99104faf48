"""The plan of all declared tables: where every event type goes, in the one order in which all families touch tables.

Promises that a gap or an overlap fails when the plan is made, at start-up and not at the first message: a NOT NULL
column without a source, a type in two tables, a column that no contract knows.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args, get_origin

from contracts.envelope import EventData
from worker.errors import Misconfigured
from worker.store.declaration import Entity, Fact, Family, Fold
from worker.store.schema import member_of, metadata

FACT_COLUMNS = frozenset(
    {"tenant_id", "event_id", "source", "extensions", "content_digest", "created_at"}
)
ENTITY_COLUMNS = frozenset(
    {
        "tenant_id",
        "attempt",
        "placeholder",
        "clocks",
        "version",
        "created_at",
        "updated_at",
    }
)


@dataclass(frozen=True)
class Plan:
    """Where every event type goes, and the one order in which all families touch tables."""

    facts: Mapping[str, Fact] = field(default_factory=dict)
    entities: Mapping[str, Entity] = field(default_factory=dict)
    entity_of: Mapping[str, Entity] = field(default_factory=dict)
    """Table name to its entity."""

    @cached_property
    def entity_order(self) -> tuple[Entity, ...]:
        """Entities, parents first."""
        return tuple(
            self.entity_of[table.name]
            for table in metadata.sorted_tables
            if table.name in self.entity_of
        )

    @cached_property
    def fact_order(self) -> tuple[Fact, ...]:
        """Facts, parents first."""
        place = {table.name: at for at, table in enumerate(metadata.sorted_tables)}
        return tuple(
            sorted(self.facts.values(), key=lambda fact: (place[fact.table.name], fact.event))
        )


def make_plan(families: Iterable[Family]) -> Plan:
    """The plan of these families. Raises Misconfigured for every gap and overlap that it finds."""
    facts: dict[str, Fact] = {}
    entities: dict[str, Entity] = {}
    entity_of: dict[str, Entity] = {}
    problems: list[str] = []
    for family in families:
        types = family.contract.types
        for table in family.tables:
            events = (table.event,) if isinstance(table, Fact) else tuple(table.folds)
            problems += [
                f"{event} goes to two tables" for event in events if event in {**facts, **entities}
            ]
            problems += [
                f"{event} is not a type of {family.name}" for event in events if event not in types
            ]
            if isinstance(table, Fact):
                facts[table.event] = table
            else:
                entity_of[table.table.name] = table
                entities |= dict.fromkeys(events, table)
            problems += _gaps(table, types)
        problems += [
            f"{name} reaches no table" for name in types if name not in {**facts, **entities}
        ]
    if problems:
        raise Misconfigured(
            "the declared families do not fit their contracts: " + "; ".join(problems)
        )
    return Plan(facts, entities, entity_of)


def _gaps(declared: Fact | Entity, types: Mapping[str, type[EventData]]) -> list[str]:
    """What is wrong between a table and the contracts of its events."""
    name = declared.table.name
    if isinstance(declared, Fact):
        contract = types.get(declared.event)
        known = set(contract.model_fields) if contract else set()
        key = contract.key_fields if contract else ()
        keys = [f"{declared.event} names the key {key}, {name} has {declared.key_members}"]
        fits = key == declared.key_members or (not key and len(declared.key) == 1)
        members = {member_of(column) for column in declared.columns}
        return (
            ([] if fits else keys)
            + [
                f"{name}.{column.name} has no source in {declared.event}"
                for column in declared.columns
                if member_of(column) not in known | FACT_COLUMNS | set(declared.event_time)
                and not (fits and column.name in declared.key)
            ]
            + [
                f"{declared.event}.{field_name} has no column in {name}"
                for field_name in known
                if field_name not in members
            ]
        )
    filled = {*declared.created_columns, *declared.own_columns, *declared.ranked, declared.key}
    filled |= ENTITY_COLUMNS
    problems = [
        f"{name}.{column.name} has no source"
        for column in declared.table.columns
        if column.name not in filled and not column.nullable and column.computed is None
    ]
    for event, fold in declared.folds.items():
        contract = types.get(event)
        known = set(contract.model_fields) if contract else set()
        problems += [
            f"{event} sets {c}, which it does not know" for c in fold.sets if c not in known
        ]
        problems += [
            f"{name} has no column {c}" for c in fold.registers if c not in declared.table.c
        ]
        problems += [
            f"{event} tells of {status}, which has no rank"
            for status in _statuses(fold, contract)
            if status not in declared.rank
        ]
        if declared.key_member not in known:
            problems.append(f"{event} does not name {declared.key_member}")
    return problems


def _statuses(fold: Fold, contract: type[EventData] | None) -> Iterator[str]:
    """The statuses that an event may tell of."""
    if fold.status is not None:
        yield fold.status
    if fold.status_member is None:
        return
    field_ = contract.model_fields.get(fold.status_member) if contract else None
    if field_ is None:
        yield f"its {fold.status_member!r}, which it does not know"
        return
    for choice in (field_.annotation, *get_args(field_.annotation)):
        if get_origin(choice) is Literal:
            yield from get_args(choice)
