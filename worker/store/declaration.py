"""What a family declares about its tables: Fact and Entity, and the Plan that is made of all of them.

A declaration is data. Promises that a gap or an overlap fails when the plan is made, at start-up and not at the first
message: a NOT NULL column without a source, a type in two tables, a column that no contract knows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from sqlalchemy import Column, Computed, Table
from sqlalchemy.schema import ForeignKeyConstraint

from contracts.envelope import EventData
from contracts.registry import ContractFamily
from worker.errors import Misconfigured
from worker.store.schema import Kind, metadata

FACT_COLUMNS = frozenset(
    {"tenant_id", "event_id", "source", "extensions", "content_digest", "created_at"}
)
ENTITY_COLUMNS = frozenset(
    {"tenant_id", "status", "attempt", "placeholder", "clocks", "version", "created_at", "updated_at"}
)


@dataclass(frozen=True)
class Parent:
    """A foreign key to an entity: the column that names the parent, and the parent's table."""

    column: str
    table: Table


def parents(table: Table) -> tuple[Parent, ...]:
    """The entities that a row of this table may name before they exist."""
    return tuple(
        Parent(next(name for name in constraint.column_keys if name != "tenant_id"), referred)
        for constraint in table.constraints
        if isinstance(constraint, ForeignKeyConstraint)
        for referred in [constraint.referred_table]
        if referred.info.get("kind") == Kind.ENTITY
    )


@dataclass(frozen=True)
class Fact:
    """One event type, one table: each message is one row.

    A column takes the contract's field of its name; `event_time` names the columns that take the event's time where
    the field is absent.
    """

    event: str
    table: Table
    event_time: tuple[str, ...] = ()

    @cached_property
    def key(self) -> tuple[str, ...]:
        """The columns of the idempotency key, without the tenant."""
        return tuple(column.name for column in self.table.primary_key if column.name != "tenant_id")

    @cached_property
    def parents(self) -> tuple[Parent, ...]:
        """The entities that a row names."""
        return parents(self.table)

    @cached_property
    def columns(self) -> tuple[Column[object], ...]:
        """The columns that a message fills, in table order."""
        return tuple(
            column
            for column in self.table.columns
            if column.name != "recorded_at" and not isinstance(column.computed, Computed)
        )


@dataclass(frozen=True)
class Fold:
    """What one event type does to its entity's row.

    `status`: the status it tells of. `sets`: the columns that take the field of their name where it is given. `at`: the
    time columns that take the event's time. `at_if_empty`: likewise, but only where nothing else has set it. `creates`:
    it is the message that fills a placeholder. `ends`: without an attempt it counts as an attempt above all, for the
    status alone.
    """

    status: str | None = None
    sets: tuple[str, ...] = ()
    at: tuple[str, ...] = ()
    at_if_empty: str | None = None
    creates: bool = False
    ends: bool = False


@dataclass(frozen=True)
class Entity:
    """A table whose rows have a life: messages fold into them, in any order, by the largest clock of each column.

    `ranks`: the statuses, lowest first, that decide between statuses of one attempt. `attempt_owned`: the columns that
    a newer attempt empties.
    """

    name: str
    table: Table
    folds: Mapping[str, Fold]
    ranks: tuple[str, ...] = ()
    attempt_owned: frozenset[str] = frozenset()

    @cached_property
    def key(self) -> str:
        """The column that identifies the entity within its tenant."""
        return next(c.name for c in self.table.primary_key if c.name != "tenant_id")

    @cached_property
    def parents(self) -> tuple[Parent, ...]:
        """The entities that a row names."""
        return parents(self.table)

    @cached_property
    def rank(self) -> Mapping[str, int]:
        """Each status and its rank."""
        return {status: rank for rank, status in enumerate(self.ranks)}

    @cached_property
    def has_attempts(self) -> bool:
        """Whether the table counts attempts."""
        return "attempt" in self.table.c

    @cached_property
    def created_columns(self) -> tuple[str, ...]:
        """The columns that only the creating event sets: they share one clock."""
        others = {
            name for fold in self.folds.values() if not fold.creates for name in (*fold.sets, *fold.at)
        }
        return tuple(
            name
            for fold in self.folds.values()
            if fold.creates
            for name in fold.sets
            if name not in others
        )

    @cached_property
    def own_columns(self) -> tuple[str, ...]:
        """The columns with a clock of their own, in table order."""
        named = {name for fold in self.folds.values() for name in (*fold.sets, *fold.at)}
        named |= {fold.at_if_empty for fold in self.folds.values() if fold.at_if_empty}
        return tuple(
            c.name for c in self.table.columns if c.name in named - set(self.created_columns)
        )

    @cached_property
    def if_empty(self) -> str | None:
        """The time column that some events set only where nothing else has."""
        return next((fold.at_if_empty for fold in self.folds.values() if fold.at_if_empty), None)


@dataclass(frozen=True)
class Family:
    """All that the worker knows of a family: its contracts, the tables they reach, the migration these need."""

    contract: ContractFamily
    tables: tuple[Fact | Entity, ...]
    revision: str

    @property
    def name(self) -> str:
        """The family's name; its queue is `worker.<name>`."""
        return self.contract.name


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
        return tuple(sorted(self.facts.values(), key=lambda fact: (place[fact.table.name], fact.event)))


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
            problems += [f"{event} goes to two tables" for event in events if event in {**facts, **entities}]
            problems += [f"{event} is not a type of {family.name}" for event in events if event not in types]
            if isinstance(table, Fact):
                facts[table.event] = table
            else:
                entity_of[table.table.name] = table
                entities |= dict.fromkeys(events, table)
            problems += _gaps(table, types)
        problems += [f"{name} reaches no table" for name in types if name not in {**facts, **entities}]
    if problems:
        raise Misconfigured("the declared families do not fit their contracts: " + "; ".join(problems))
    return Plan(facts, entities, entity_of)


def _gaps(declared: Fact | Entity, types: Mapping[str, type[EventData]]) -> list[str]:
    """What is wrong between a table and the contracts of its events."""
    name = declared.table.name
    if isinstance(declared, Fact):
        contract = types.get(declared.event)
        known = set(contract.model_fields) if contract else set()
        return [
            f"{name}.{column.name} has no source in {declared.event}"
            for column in declared.columns
            if column.name not in known | FACT_COLUMNS | set(declared.event_time)
            and not (column.nullable or column.server_default is not None)
        ] + [
            f"{declared.event}.{field_name} has no column in {name}"
            for field_name in known
            if field_name not in declared.table.c
        ]
    filled = {*declared.created_columns, *declared.own_columns, declared.key, *ENTITY_COLUMNS}
    problems = [
        f"{name}.{column.name} has no source"
        for column in declared.table.columns
        if column.name not in filled and not column.nullable and column.computed is None
    ]
    for event, fold in declared.folds.items():
        contract = types.get(event)
        known = set(contract.model_fields) if contract else set()
        problems += [f"{event} sets {c}, which it does not know" for c in fold.sets if c not in known]
        problems += [
            f"{name} has no column {c}" for c in (*fold.sets, *fold.at) if c not in declared.table.c
        ]
        if fold.status is not None and fold.status not in declared.rank:
            problems.append(f"{event} tells of {fold.status}, which has no rank")
        if declared.key not in known:
            problems.append(f"{event} does not name {declared.key}")
    return problems


