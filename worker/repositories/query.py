"""Filters on declared columns: which there are, what their values may be, and the conditions that they make.

Promises that nothing a caller writes reaches SQL but as a bound value, and that a mistake is named with what would be
right: an unknown field with the fields there are, a value with the type that is wanted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args
from uuid import UUID

import sqlalchemy as sa
from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError
from sqlalchemy.dialects.postgresql import JSONB

from worker.repositories import search
from worker.repositories.errors import BadQuery
from worker.repositories.scope import scope_columns

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in", "starts with", "contains", "is null"]
_MOST_VALUES = 1000

# The first that fits decides; a type that is not here has no order and no equality that a caller could use.
_TYPES: tuple[tuple[type[sa.types.TypeEngine[Any]], str, TypeAdapter[Any]], ...] = (
    (sa.Uuid, "a UUID", TypeAdapter(UUID)),
    (sa.Boolean, "true or false", TypeAdapter(bool)),
    (sa.BigInteger, "an integer", TypeAdapter(Annotated[int, Field(ge=-(2**63), lt=2**63)])),
    (sa.Integer, "an integer", TypeAdapter(Annotated[int, Field(ge=-(2**31), lt=2**31)])),
    (sa.Float, "a number", TypeAdapter(float)),
    (sa.Numeric, "a number", TypeAdapter(Decimal)),
    (sa.DateTime, "a time with an offset", TypeAdapter(AwareDatetime)),
    (sa.String, "text", TypeAdapter(Annotated[str, Field(strict=True, pattern=r"^[^\x00]*$")])),
)


@dataclass(frozen=True)
class Filter:
    """One condition on one column; a list of filters means all of them."""

    field: str
    operator: Operator
    value: Any = None


Where = Mapping[str, Any] | Sequence[Filter]
"""Filters; a mapping means equal, or one of a list, or null where the value is None."""


def conditions(table: sa.Table, where: Where, tenant: str) -> list[sa.ColumnElement[bool]]:
    """The conditions that these filters mean, of a tenant's rows. Raises BadQuery."""
    filters = list(map(_simple, where.items())) if isinstance(where, Mapping) else where
    return [_condition(one, _column(table, one.field), tenant) for one in filters]


def fields(table: sa.Table) -> tuple[str, ...]:
    """The columns that may be filtered by."""
    hidden = scope_columns(table) | {"clocks", "content_digest"}
    return tuple(column.name for column in table.columns if column.name not in hidden)


def is_orderable(column: sa.Column[Any]) -> bool:
    """Whether rows can be sorted and compared by this column."""
    return _type(column) is not None


def value_of(column: sa.Column[Any], value: Any) -> Any:
    """A value as the column takes it. Raises BadQuery naming the field, the value and what is wanted."""
    found = _type(column)
    if found is None:
        raise BadQuery(f"{column.name} is {column.type}: it cannot be compared with a value")
    wanted, adapter = found
    try:
        return adapter.validate_python(value)
    except ValidationError:
        raise BadQuery(f"{column.name} must be {wanted}, not {str(value)[:100]!r}") from None


def known_column(table: sa.Table, name: str, allowed: Sequence[str]) -> sa.Column[Any]:
    """The column of a name. Raises BadQuery naming those that there are."""
    if name not in allowed:
        raise BadQuery(f"{table.name} has no field {name!r} here; there are: {', '.join(allowed)}")
    return table.c[name]


def _column(table: sa.Table, name: str) -> sa.Column[Any]:
    return known_column(table, name, fields(table))


def _type(column: sa.Column[Any]) -> tuple[str, TypeAdapter[Any]] | None:
    for kind, wanted, adapter in _TYPES:
        if isinstance(column.type, kind):
            return wanted, adapter
    return None


def _simple(item: tuple[str, Any]) -> Filter:
    name, value = item
    match value:
        case None:
            return Filter(name, "is null", value=True)
        case list() | tuple() | set() | frozenset():
            return Filter(name, "in", list(value))
        case _:
            return Filter(name, "=", value)


def _condition(one: Filter, column: sa.Column[Any], tenant: str) -> sa.ColumnElement[bool]:
    match one.operator:
        case "is null":
            return column.is_(None) if one.value is not False else column.is_not(None)
        case "contains":
            return _contains(column, one.value, tenant)
        case "in":
            return column.in_([value_of(column, value) for value in _several(one)])
        case "starts with":
            return _starts_with(column, one.value)
        case "=" | "!=" | "<" | "<=" | ">" | ">=":
            compared = column.op(one.operator, is_comparison=True)
            return compared(sa.literal(value_of(column, one.value), column.type))
        case _:
            raise BadQuery(
                f"{one.operator!r} is no operator; there are: {', '.join(get_args(Operator))}"
            )


def _contains(column: sa.Column[Any], value: Any, tenant: str) -> sa.ColumnElement[bool]:
    if not isinstance(column.type, JSONB):
        raise BadQuery(f"{column.name} is {column.type}: 'contains' is for JSON")
    return search.contains(column, value, tenant)


def _starts_with(column: sa.Column[Any], value: Any) -> sa.ColumnElement[bool]:
    if not isinstance(column.type, sa.String):
        raise BadQuery(f"{column.name} is {column.type}: 'starts with' is for text")
    return column.startswith(value_of(column, value), autoescape=True)


def _several(one: Filter) -> Sequence[Any]:
    if isinstance(one.value, (str, bytes)) or not isinstance(one.value, (Sequence, set, frozenset)):
        raise BadQuery(f"{one.field}: 'in' takes a list, not {str(one.value)[:100]!r}")
    if len(one.value) > _MOST_VALUES:
        raise BadQuery(
            f"{one.field}: 'in' takes at most {_MOST_VALUES:,} values, not {len(one.value):,}"
        )
    return list(one.value)
