"""Bulk statements from declared columns: one array a column, whatever the number of rows.

`INSERT … SELECT … FROM unnest(…)` is as fast as COPY, and unlike COPY it can skip what is already there.
"""

from collections.abc import Container, Sequence
from typing import Any

from pydantic import BaseModel
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    Integer,
    LargeBinary,
    Numeric,
    Text,
    Uuid,
    types,
)
from sqlalchemy.dialects.postgresql import INET, JSONB

from worker.errors import Misconfigured
from worker.message import Message
from worker.store.embedding import Embedding

# The element type of a column's array, and how PostgreSQL converts it on the way into the column. JSON travels as
# text; a length or a scale stays out of the array's type, so that a misfit is an error and not a silent cut.
_ELEMENTS: tuple[tuple[type[types.TypeEngine[Any]], str, str], ...] = (
    (JSONB, "text", "{}::jsonb"),
    (Embedding, "text", "to_embedding({})"),
    (INET, "text", "{}::inet"),
    (Uuid, "uuid", "{}"),
    (Boolean, "bool", "{}"),
    (BigInteger, "int8", "{}"),
    (Integer, "int4", "{}"),
    (Float, "float8", "{}"),
    (Numeric, "numeric", "{}"),
    (DateTime, "timestamptz", "{}"),
    (LargeBinary, "bytea", "{}"),
    (types.String, "text", "{}"),
    (Text, "text", "{}"),
)


def _element(column: Column[Any]) -> tuple[str, str]:
    for kind, element, conversion in _ELEMENTS:
        if isinstance(column.type, kind) and not isinstance(column.type, ARRAY):
            return element, conversion
    raise Misconfigured(f"{column.table.name}.{column.name} has a type that messages cannot fill")


def is_json(column: Column[Any]) -> bool:
    """Whether values of this column are handed over as JSON text."""
    return isinstance(column.type, (JSONB, Embedding))


def column_value(message: Message, name: str, json_columns: Container[str]) -> Any:
    """The value of a contract's field for its column: JSON as received, a model with its defaults, else as validated."""
    value = getattr(message.fields, name)
    if name not in json_columns or value is None:
        return value
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else message.data[name]


def unnest(columns: Sequence[Column[Any]]) -> str:
    """The FROM item `u` that turns arrays $1, $2 … into rows, with their ordinality."""
    arrays = ", ".join(f"${at}::{_element(c)[0]}[]" for at, c in enumerate(columns, 1))
    names = ", ".join(f'"{column.name}"' for column in columns)
    return f"unnest({arrays}) WITH ORDINALITY AS u({names}, ordinality)"


def cast_expression(column: Column[Any], expression: str) -> str:
    """The expression, converted to the column's type where the array's element is another."""
    return _element(column)[1].format(expression)


def literal_default(column: Column[Any], expression: str) -> str:
    """The expression, or the column's default where it is null."""
    default = getattr(column.server_default, "arg", None)
    if default is None:
        return expression
    text = str(getattr(default, "text", default))
    literal = text if hasattr(default, "text") else "'" + text.replace("'", "''") + "'"
    return f"COALESCE({expression}, {literal})"


def insert_sql(columns: Sequence[Column[Any]], key: Sequence[str]) -> str:
    """One statement that inserts what is not there yet and returns the keys of what it inserted."""
    table = columns[0].table
    names = ", ".join(f'"{column.name}"' for column in columns)
    selected = ", ".join(
        literal_default(column, cast_expression(column, f'u."{column.name}"')) for column in columns
    )
    keys = ", ".join(f'"{name}"' for name in (*key, "tenant_id"))
    return (
        f"INSERT INTO {table.name} ({names}) SELECT {selected} FROM {unnest(columns)} "  # noqa: S608 (names from the declaration)
        f"ON CONFLICT ({keys}) DO NOTHING RETURNING {keys}"
    )


def digests_sql(columns: Sequence[Column[Any]]) -> str:
    """One statement that reads the digests of stored keys; `columns` are the key's."""
    table = columns[0].table
    joined = " AND ".join(f'f."{c.name}" = u."{c.name}"' for c in columns)
    keys = ", ".join(f'f."{c.name}"' for c in columns)
    return f"SELECT {keys}, f.content_digest FROM {unnest(columns)} JOIN {table.name} f ON {joined}"  # noqa: S608 (as above)
