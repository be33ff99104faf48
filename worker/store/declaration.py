"""What a family declares about its tables: Fact and Entity, and how an event folds. A declaration is data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sqlalchemy import Column, Computed, Table
from sqlalchemy.schema import ForeignKeyConstraint

from contracts.registry import ContractFamily
from worker.message import Message
from worker.store.schema import Kind, member_of


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

    A column takes the contract's field of its name, one of the key the one that `key_column` was given; `event_time` names
    the columns that take the event's time where the field is absent; `later`: those that no message fills.
    """

    event: str
    table: Table
    event_time: tuple[str, ...] = ()
    later: tuple[str, ...] = ()

    @cached_property
    def key(self) -> tuple[str, ...]:
        """The columns of the idempotency key, without the tenant."""
        return tuple(column.name for column in self.table.primary_key if column.name != "tenant_id")

    @cached_property
    def key_members(self) -> tuple[str, ...]:
        """The members of a message that are its idempotency key, in the order of the columns."""
        return tuple(member_of(self.table.c[name]) for name in self.key)

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
            if column.name not in ("recorded_at", *self.later)
            and not isinstance(column.computed, Computed)
        )


@dataclass(frozen=True)
class Fold:
    """What one event type does to its entity's row.

    `status`: the status it tells of; `status_member`: the member that says it, where one type tells of several. `sets`:
    the columns that take the field of their name where it is given. `means`: the columns that take a fixed value, because
    the event happened. `at`: the time columns that take the event's time. `at_if_empty`: likewise, but only where nothing else has set it. `creates`:
    it is the message that fills a placeholder. `ends`: without an attempt it counts as an attempt above all, for the
    status alone. `parts`: the messages that it stands for, which are stored with it, or not at all.
    """

    status: str | None = None
    status_member: str | None = None
    sets: tuple[str, ...] = ()
    means: Mapping[str, Any] = field(default_factory=dict)
    at: tuple[str, ...] = ()
    at_if_empty: str | None = None
    creates: bool = False
    ends: bool = False
    parts: Callable[[Message], Sequence[Message]] | None = None

    @property
    def registers(self) -> tuple[str, ...]:
        """The columns that it writes with a clock, without the status."""
        return (*self.sets, *self.means, *self.at)


@dataclass(frozen=True)
class Entity:
    """A table whose rows have a life: messages fold into them, in any order, by the largest clock of each column.

    `ranks`: the statuses, lowest first, that decide between statuses of one attempt; those that an entity goes back and
    forth between stand together in one rank, where the later one wins. `status`: the column that holds them.
    `attempt_owned`: the columns that a newer attempt empties. `encrypted`: the columns of text that are stored encrypted
    where there are keys.
    """

    name: str
    table: Table
    folds: Mapping[str, Fold]
    ranks: tuple[str | tuple[str, ...], ...] = ()
    status: str = "status"
    attempt_owned: frozenset[str] = frozenset()
    encrypted: frozenset[str] = frozenset()

    @cached_property
    def key(self) -> str:
        """The column that identifies the entity within its tenant."""
        return next(c.name for c in self.table.primary_key if c.name != "tenant_id")

    @cached_property
    def key_member(self) -> str:
        """The member of a message that names the entity."""
        return member_of(self.table.c[self.key])

    @cached_property
    def parents(self) -> tuple[Parent, ...]:
        """The entities that a row names."""
        return parents(self.table)

    @cached_property
    def rank(self) -> Mapping[str, int]:
        """Each status and its rank."""
        return {
            status: rank
            for rank, equals in enumerate(self.ranks)
            for status in ((equals,) if isinstance(equals, str) else equals)
        }

    @cached_property
    def ranked(self) -> tuple[str, ...]:
        """The column whose clocks hold a rank, if there is one."""
        return (self.status,) if self.ranks else ()

    @cached_property
    def has_attempts(self) -> bool:
        """Whether the table counts attempts."""
        return "attempt" in self.table.c

    @cached_property
    def created_columns(self) -> tuple[str, ...]:
        """The columns that only the creating event sets: they share one clock."""
        others = {
            name for fold in self.folds.values() if not fold.creates for name in fold.registers
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
        named = {name for fold in self.folds.values() for name in fold.registers}
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
