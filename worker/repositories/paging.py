"""Sorting and pages: after a cursor, which costs the same on every page, or after an offset, up to a limit.

A cursor holds the values that the last row was sorted by and its key, so that rows which come or go between two pages
neither shift nor repeat the others. Promises one total order: what is equal is told apart by the key.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa

from worker.repositories.errors import BadQuery
from worker.repositories.query import fields, is_orderable, known_column, value_of

MOST_ROWS = 1000
"""The most rows of one page."""

FURTHEST_OFFSET = 10_000
"""The most rows that an offset skips: PostgreSQL reads all of them. A cursor has no such limit."""

_LONGEST_CURSOR = 8192


@dataclass(frozen=True)
class Page:
    """Some rows in order, and the cursor of the next page; None where this is the last."""

    rows: list[dict[str, Any]]
    next: str | None


@dataclass(frozen=True)
class Order:
    """The columns that rows are sorted by, the key last; of each whether it falls."""

    columns: tuple[tuple[sa.Column[Any], bool], ...]

    @property
    def clauses(self) -> list[sa.UnaryExpression[Any]]:
        """What stands behind ORDER BY."""
        return [column.desc() if falls else column.asc() for column, falls in self.columns]

    @property
    def names(self) -> list[str]:
        """The order as a cursor keeps it."""
        return [f"{'-' if falls else ''}{column.name}" for column, falls in self.columns]

    def cursor(self, row: Mapping[str, Any]) -> str:
        """Where this row stands."""
        values = [row[column.name] for column, _ in self.columns]
        text = orjson.dumps([self.names, values], default=str)
        return base64.urlsafe_b64encode(text).decode().rstrip("=")

    def after(self, cursor: str) -> sa.ColumnElement[bool]:
        """The condition of all rows behind a cursor. Raises BadQuery where it is not one of this order."""
        values = self._values(cursor)
        either: list[sa.ColumnElement[bool]] = []
        same: list[sa.ColumnElement[bool]] = []
        for (column, falls), value in zip(self.columns, values, strict=True):
            either.append(sa.and_(*same, _behind(column, value, falls=falls)))
            same.append(column.is_(None) if value is None else column == value)
        return sa.and_(self._bound(values[0]), sa.or_(*either))

    def _bound(self, first: Any) -> sa.ColumnElement[bool]:
        """The same of the first column alone: what an index can begin at."""
        column, falls = self.columns[0]
        if first is None or column.nullable:
            return sa.true()
        bound: sa.ColumnElement[bool] = column <= first if falls else column >= first
        return bound

    def _values(self, cursor: str) -> list[Any]:
        try:
            padded = cursor[:_LONGEST_CURSOR] + "=" * (-len(cursor) % 4)
            names, values = orjson.loads(base64.urlsafe_b64decode(padded))
        except (ValueError, TypeError, binascii.Error):
            raise BadQuery("the cursor is none that a page of this table has given") from None
        if names != self.names or not isinstance(values, list) or len(values) != len(self.columns):
            raise BadQuery("the cursor is of another sort: begin without one, or sort as before")
        return [
            None if value is None else value_of(column, value)
            for (column, _), value in zip(self.columns, values, strict=True)
        ]


def _behind(column: sa.Column[Any], value: Any, *, falls: bool) -> sa.ColumnElement[bool]:
    """Behind a value in one column; null counts as the largest, as PostgreSQL sorts it."""
    if value is None:
        return column.is_not(None) if falls else sa.false()
    behind: sa.ColumnElement[bool] = column < value if falls else column > value
    return sa.or_(behind, column.is_(None)) if column.nullable and not falls else behind


def order(table: sa.Table, sort: Sequence[str]) -> Order:
    """The order of `sort`, such as ("-created_at",), made total by the key. Raises BadQuery."""
    allowed = [name for name in fields(table) if is_orderable(table.c[name])]
    chosen: dict[str, bool] = {}
    for text in sort:
        name = text.removeprefix("-")
        known_column(table, name, allowed)
        chosen.setdefault(name, text.startswith("-"))
    falls = next(iter(chosen.values()), True)
    for column in table.primary_key:
        if column.name != "tenant_id":
            chosen.setdefault(column.name, falls)
    return Order(tuple((table.c[name], down) for name, down in chosen.items()))


def check_page(limit: int, offset: int, after: str | None) -> None:
    """Raises BadQuery where a page is too large, or too far away for an offset."""
    if not 1 <= limit <= MOST_ROWS:
        raise BadQuery(f"limit must be 1 to {MOST_ROWS:,}, not {limit:,}")
    if offset and after is not None:
        raise BadQuery("give a cursor or an offset, not both")
    if not 0 <= offset <= FURTHEST_OFFSET:
        raise BadQuery(
            f"offset must be 0 to {FURTHEST_OFFSET:,}, not {offset:,}: the cursor of a page goes further"
        )
