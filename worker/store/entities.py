"""Upserts the folded rows and the placeholders of entity tables."""

from collections.abc import Mapping, Sequence
from datetime import datetime
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
        self._columns = upsert_columns(entity)
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
                array(self.entity.table.c[name], [self._value(row, name) for row in in_order])
                for name in self._columns
            ),
        )

    def _value(self, row: Folded, name: str) -> Any:
        if name == self.entity.key:
            return row.key
        match name:
            case "tenant_id":
                return row.tenant
            case "attempt" | "placeholder" | "created_at" | "version" | "clocks":
                return getattr(row, name)
        value = visible(self.entity, row, name)
        if self._encrypt and value is not None and name in self.entity.encrypted:
            return self._encrypt(value)
        return value
