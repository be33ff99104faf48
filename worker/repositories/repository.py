"""The repository of one table: get, find, count, create and erase within a scope; of an entity, update too.

Promises that each statement is bound to the scope, that create and update are events through the worker's own
statements (writing.py), and that an update for a version that has passed is refused by name of both versions. It works
in the transaction that it is given and never commits.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import Event
from worker import families
from worker.message import Accepted
from worker.repositories import erasure, paging
from worker.repositories.errors import AlreadyExists, BadQuery, NotFound, OutOfScope, Stale
from worker.repositories.paging import Page
from worker.repositories.query import Where, conditions, known_column, value_of
from worker.repositories.scope import Scope
from worker.repositories.writing import store
from worker.store.declaration import Entity
from worker.store.lifecycle import lifecycle_events
from worker.store.schema import Kind

Row = dict[str, Any]
Key = Any
"""The value of the key's column; a tuple where the key has several."""

_STREAMED_AT_ONCE = 500
_HISTORY = ("event_id", "time", "type", "source", "attempt", "data", "recorded_at")


@dataclass(frozen=True)
class Written:
    """The row after a create or update, and whether this call has changed it."""

    row: Row
    outcome: Literal["persisted", "duplicate"]


class Repository:
    """Rows of one table within a scope. A subclass names its `table`."""

    table: ClassVar[sa.Table]
    """Any declared fact or entity."""

    def __init__(self, connection: AsyncConnection, scope: Scope) -> None:
        self._connection = connection
        self.scope = scope
        self._scoped = scope.conditions(self.table)

    @classmethod
    def key_columns(cls) -> tuple[sa.Column[Any], ...]:
        """The columns that identify a row within its tenant."""
        return tuple(column for column in cls.table.primary_key if column.name != "tenant_id")

    async def get(self, key: Key, *, columns: Sequence[str] = ()) -> Row | None:
        """The row with this key, or None."""
        chosen = self._select(columns).where(*self._of(key))
        found = (await self._connection.execute(chosen)).mappings().one_or_none()
        return None if found is None else dict(found)

    async def require(self, key: Key) -> Row:
        """The row with this key. Raises NotFound."""
        row = await self.get(key)
        if row is None:
            raise NotFound(f"there is no {self._name(key)}")
        return row

    async def find(
        self,
        where: Where = (),
        *,
        sort: Sequence[str] = (),
        limit: int = 50,
        after: str | None = None,
        offset: int = 0,
        columns: Sequence[str] = (),
    ) -> Page:
        """One page of what matches, newest first unless `sort` says otherwise. Raises BadQuery.

        `after` is the cursor of the page before; `offset` skips rows instead, at most `paging.FURTHEST_OFFSET`.
        """
        paging.check_page(limit, offset, after)
        order = self._order(sort)
        names = [*columns, *(c.name for c, _ in order.columns)] if columns else ()
        chosen = self.query(where, sort=sort, limit=limit + 1, after=after, columns=names)
        chosen = chosen.offset(offset or None)
        found = [dict(row) for row in (await self._connection.execute(chosen)).mappings()]
        rows = found[:limit]
        return Page(rows, order.cursor(rows[-1]) if len(found) > limit else None)

    def query(
        self,
        where: Where = (),
        *,
        sort: Sequence[str] = (),
        limit: int,
        after: str | None = None,
        columns: Sequence[str] = (),
    ) -> sa.Select[Any]:
        """The statement of a page, for whoever wants to explain it. Raises BadQuery."""
        order = self._order(sort)
        chosen = self._select(columns).where(*conditions(self.table, where, self.scope.tenant))
        if after is not None:
            chosen = chosen.where(order.after(after))
        return chosen.order_by(*order.clauses).limit(limit)

    async def stream(self, where: Where = (), *, sort: Sequence[str] = ()) -> AsyncIterator[Row]:
        """Every row that matches, in order, a few hundred in memory at a time."""
        after: str | None = None
        while True:
            page = await self.find(where, sort=sort, limit=_STREAMED_AT_ONCE, after=after)
            for row in page.rows:
                yield row
            after = page.next
            if after is None:
                return

    async def count(self, where: Where = (), *, upto: int | None = None) -> int:
        """How many rows match; with `upto`, counting stops there."""
        matching = sa.select(sa.literal(1)).select_from(self.table)
        matching = matching.where(
            *self._scoped, *conditions(self.table, where, self.scope.tenant)
        ).limit(upto)
        number = sa.select(sa.func.count()).select_from(matching.subquery())
        return (await self._connection.execute(number)).scalar_one()

    async def create(self, event: Event) -> Written:
        """Store the event that makes a row. The same event again is a duplicate. Raises Refused, OutOfScope."""
        created = [
            fact.event for fact in families.plan().facts.values() if fact.table is self.table
        ]
        _check_type(event, created, f"makes a row of {self.table.name}")
        [accepted] = await store(self._connection, [event], self.scope.tenant)
        return Written(await self._written(accepted.message.key), accepted.outcome)

    async def erase(self, key: Key, *, by: str, reason: str) -> erasure.Erased:
        """Delete the row and all that it owns, and record who did it and why. Raises NotFound and Refused.

        What a publisher repeats of an erased fact is stored again: see worker/repositories/erasure.py.
        """
        return await erasure.erase(
            self._connection, self.table, self._of(key), self._name(key), by=by, reason=reason
        )

    async def _written(self, key: Key) -> Row:
        """The row that was just written. Raises OutOfScope where it is not of this session."""
        row = await self.get(key)
        if row is None:
            raise OutOfScope(f"{self._name(key)} is not of the session {self.scope.session}")
        return row

    def _select(self, names: Sequence[str]) -> sa.Select[Any]:
        allowed = [column.name for column in self.table.columns]
        chosen = [known_column(self.table, name, allowed) for name in dict.fromkeys(names)]
        return sa.select(*(chosen or self.table.columns)).where(*self._scoped)

    def _of(self, key: Key) -> list[sa.ColumnElement[bool]]:
        columns = self.key_columns()
        values = key if isinstance(key, tuple) else (key,)
        if len(values) != len(columns):
            names = ", ".join(column.name for column in columns)
            raise BadQuery(f"the key of {self.table.name} is ({names}), not {len(values)} values")
        pairs = zip(columns, values, strict=True)
        return [*self._scoped, *(column == value_of(column, value) for column, value in pairs)]

    def _name(self, key: Key) -> str:
        values = key if isinstance(key, tuple) else (key,)
        told = "/".join(map(str, values))
        return f"{self.table.info.get('entity_type', self.table.name)} {told}"

    def _order(self, sort: Sequence[str]) -> paging.Order:
        newest = self.table.info.get("time_column", "created_at")
        return paging.order(self.table, sort or (f"-{newest}",))


class EntityRepository(Repository):
    """Rows that events fold into: they have a version and a history."""

    async def create(self, event: Event) -> Written:
        """Store the event that creates the entity. The same event again is a duplicate. Raises AlreadyExists, Refused.

        An entity that was only named so far, or of which later events came first, can still be created.
        """
        entity = self._entity()
        creating = [name for name, fold in entity.folds.items() if fold.creates]
        _check_type(event, creating, f"creates a {entity.name}")
        accepted, key = await self._store([event])
        if accepted[0].fresh and await self._created_by_another(key, creating, event.id):
            raise AlreadyExists(f"{self._name(key)} was created before, by another event")
        return Written(await self._written(key), accepted[0].outcome)

    async def update(self, *events: Event, expected_version: int | None = None) -> Written:
        """Store events that change one entity. Raises NotFound, Stale, Refused, OutOfScope.

        `expected_version`: the version that the caller has read; in any other, nothing is changed. Events that are
        stored already are duplicates and never stale, so an update whose answer was lost can be tried again as it is.
        """
        entity = self._entity()
        changing = [name for name, fold in entity.folds.items() if not fold.creates]
        for event in events:
            _check_type(event, changing, f"changes a {entity.name}")
        accepted, key = await self._store(events)
        row = await self._written(key)
        fresh = sum(one.fresh for one in accepted)
        before = row["version"] - fresh
        if fresh and before == 0:
            raise NotFound(f"there is no {self._name(key)} yet, or it was only named so far")
        if fresh and expected_version is not None and before != expected_version:
            raise Stale(self._name(key), expected_version, before)
        return Written(row, "persisted" if fresh else "duplicate")

    async def history(self, key: Key, *, limit: int = 100) -> list[Row]:
        """The events of an entity in the order of their own time, the latest `limit` of them."""
        paging.check_page(limit, 0, None)
        await self.require(key)
        table = lifecycle_events
        chosen = (
            sa.select(*(table.c[name] for name in _HISTORY))
            .where(table.c.entity_type == self._entity().name, table.c.entity_id == str(key))
            .where(table.c.tenant_id == self.scope.tenant)
            .order_by(table.c.time.desc(), table.c.event_id.desc())
            .limit(limit)
        )
        found = [dict(row) for row in (await self._connection.execute(chosen)).mappings()]
        return found[::-1]

    async def _store(self, events: Sequence[Event]) -> tuple[list[Accepted], Key]:
        """Store events of one entity; its key."""
        accepted = await store(self._connection, events, self.scope.tenant)
        member = self._entity().key_member
        keys = {getattr(one.message.fields, member) for one in accepted}
        if len(keys) != 1:
            raise BadQuery(f"the events must be of one {self._entity().name}, not of {len(keys)}")
        return accepted, keys.pop()

    async def _created_by_another(self, key: Key, creating: Sequence[str], event_id: UUID) -> bool:
        """Whether there is a creating event beside this one; looked for while our own write holds the row's lock."""
        table = lifecycle_events
        other = (
            sa.select(sa.literal(1))
            .where(table.c.entity_type == self._entity().name, table.c.entity_id == str(key))
            .where(table.c.tenant_id == self.scope.tenant, table.c.type.in_(creating))
            .where(table.c.event_id != event_id)
            .limit(1)
        )
        return (await self._connection.execute(other)).first() is not None

    @classmethod
    def _entity(cls) -> Entity:
        return families.plan().entity_of[cls.table.name]


def _check_type(event: Event, allowed: Sequence[str], does: str) -> None:
    if event.type not in allowed:
        raise BadQuery(f"{event.type} is no event that {does}; there are: {', '.join(allowed)}")


def generic(table: sa.Table) -> type[Repository]:
    """A repository class for a declared table that has none of its own."""
    base = EntityRepository if table.info.get("kind") == Kind.ENTITY else Repository
    attributes: Mapping[str, Any] = {"table": table, "__doc__": f"Rows of {table.name}."}
    return type(f"{table.name}_repository", (base,), dict(attributes))
