"""Upserts the folded rows and the placeholders of entity tables."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

import asyncpg

from worker.message import Message
from worker.store.bulk import array, is_json
from worker.store.declaration import Entity
from worker.store.encryption import Cipher
from worker.store.merge import Folded, fold_batch, visible
from worker.store.merge_sql import placeholder_columns, placeholder_sql, upsert_columns, upsert_sql


class EntityWriter:
    """Upserts folded rows and placeholders of one entity table."""

    def __init__(self, entity: Entity, cipher: Cipher | None = None) -> None:
        self.entity = entity
        self._encrypt = cipher.encrypt if cipher else None
        self._json = frozenset(c.name for c in entity.table.columns if is_json(c))
        self._columns = [
            (entity.table.c[name], self._getter(name)) for name in upsert_columns(entity)
        ]
        self._upsert = upsert_sql(entity)
        self._placeholders = placeholder_sql(entity)
        self._named = placeholder_columns(entity)

    async def write(
        self,
        connection: asyncpg.Connection,
        changes: Sequence[Message],
        named: Mapping[tuple[Any, str], datetime],
    ) -> None:
        """Fold the changes, and make what was only named; both in one statement and one order of keys."""
        if not changes and named:
            keys = sorted(named)
            values = (
                [key for key, _ in keys],
                [tenant for _, tenant in keys],
                [named[place] for place in keys],
            )
            await connection.execute(self._placeholders, *map(array, self._named, values))
        if not changes:
            return
        rows = fold_batch(self.entity, changes, self._json)
        for (key, tenant), time in named.items():
            row = rows.setdefault((key, tenant), Folded(key, tenant, time))
            if row.placeholder:
                row.created_at = min(row.created_at, time)
        in_order = [rows[place] for place in sorted(rows)]
        await connection.execute(
            self._upsert,
            *(
                array(column, [value_of(row) for row in in_order])
                for column, value_of in self._columns
            ),
        )

    def _getter(self, name: str) -> Callable[[Folded], Any]:
        """What gives the value of this column."""
        entity, encrypt = self.entity, self._encrypt
        if name == entity.key:
            return attrgetter("key")
        if name == "tenant_id":
            return attrgetter("tenant")
        if name in ("attempt", "placeholder", "created_at", "version", "clocks"):
            return attrgetter(name)
        if encrypt and name in entity.encrypted:
            return lambda row: (
                None if (value := visible(entity, row, name)) is None else encrypt(value)
            )
        if name == entity.if_empty or name in entity.attempt_owned:
            return lambda row: visible(entity, row, name)
        return lambda row: row.values.get(name)
