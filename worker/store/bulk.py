"""Bulk statements from declared columns: one array a column, whatever the number of rows.

`INSERT … SELECT … ON CONFLICT` from arrays is as fast as COPY, and unlike COPY it can skip what is already there.
Arrays travel as JSON: written by orjson and read by PostgreSQL they cost less than half of what the driver's binary
arrays cost the worker, which looks at every value several times; PostgreSQL pays a part of that. It reads JSON inside a
JSON array three times, though: where it is large, each value of a column goes `apart`, in an array of texts.
"""

from collections.abc import Container, Sequence
from typing import Any

import orjson
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

# What turns an element of a column's JSON array, as text, into a value of the column. A length or a scale stays out of
# it, so that a misfit is an error and not a silent cut.
_CASTS: tuple[tuple[type[types.TypeEngine[Any]], str], ...] = (
    # The elements of this one are JSON themselves; only the value null, never the text "null", is no value at all.
    (JSONB, "NULLIF({}::text, 'null')::jsonb"),
    (Embedding, "to_embedding(NULLIF({}::text, 'null'))"),
    (INET, "{}::inet"),
    (Uuid, "{}::uuid"),
    (Boolean, "{}::bool"),
    (BigInteger, "{}::int8"),
    (Integer, "{}::int4"),
    (Float, "{}::float8"),
    (Numeric, "{}::numeric"),
    (DateTime, "{}::timestamptz"),
    (LargeBinary, "decode({}, 'hex')"),
    (types.String, "{}"),
    (Text, "{}"),
)

_OFTEN_ALIKE = frozenset({"tenant_id", "source"})
"""Columns of text that travel as PostgreSQL's own arrays, with one element where all rows have the same."""


def _cast(column: Column[Any]) -> str:
    for kind, cast in _CASTS:
        if isinstance(column.type, kind) and not isinstance(column.type, ARRAY):
            return cast
    raise Misconfigured(f"{column.table.name}.{column.name} has a type that messages cannot fill")


def array(column: Column[Any], values: Sequence[Any], *, apart: bool = False) -> Any:
    """The values of a column, one for each row, as the parameter that `rows_of` reads. None is NULL."""
    if apart and is_json(column):
        return [None if value is None else _json(value) for value in values]
    if column.name in _OFTEN_ALIKE:
        alike = len(values) > 1 and values.count(values[0]) == len(values)
        return [values[0]] if alike else list(values)
    if isinstance(column.type, LargeBinary):
        values = [None if value is None else value.hex() for value in values]
    return _json(values)


def _json(value: Any) -> str:
    return orjson.dumps(value, default=str).decode()  # str: amounts, and the driver's own UUIDs


def is_json(column: Column[Any]) -> bool:
    """Whether values of this column are handed over as JSON text."""
    return isinstance(column.type, (JSONB, Embedding))


def column_value(message: Message, name: str, json_columns: Container[str]) -> Any:
    """The value of a contract's field for its column: JSON as received, a model with its defaults, else as validated."""
    value = getattr(message.fields, name)
    if name not in json_columns or value is None:
        return value
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else message.data[name]


def rows_of(columns: Sequence[Column[Any]], *, apart: bool = False) -> str:
    """The FROM item `u` that turns parameters $1, $2 …, made by `array`, into typed rows with their ordinality."""
    names = [f'"{column.name}"' for column in columns]
    arrays = ", ".join(_elements(at, column, apart=apart) for at, column in enumerate(columns, 1))
    values = ", ".join(
        f"{_value(at, column)} AS {name}"
        for at, (column, name) in enumerate(zip(columns, names, strict=True), 1)
    )
    return (
        f"(SELECT {values}, a.ordinality FROM ROWS FROM ({arrays}) "  # noqa: S608 (names from the declaration)
        f"WITH ORDINALITY AS a({', '.join(names)}, ordinality)) AS u"
    )


def _elements(at: int, column: Column[Any], *, apart: bool) -> str:
    if column.name in _OFTEN_ALIKE or (apart and is_json(column)):
        return f"unnest(${at}::text[])"
    function = "json_array_elements" if is_json(column) else "json_array_elements_text"
    return f"{function}(${at}::text::json)"


def _value(at: int, column: Column[Any]) -> str:
    element = f'a."{column.name}"'
    if column.name in _OFTEN_ALIKE:
        return (
            f"CASE WHEN cardinality(${at}::text[]) = 1 THEN (${at}::text[])[1] ELSE {element} END"
        )
    return _cast(column).format(element)


def literal_default(column: Column[Any], expression: str) -> str:
    """The expression, or the column's default where it is null."""
    default = getattr(column.server_default, "arg", None)
    if default is None:
        return expression
    text = str(getattr(default, "text", default))
    literal = text if hasattr(default, "text") else "'" + text.replace("'", "''") + "'"
    return f"COALESCE({expression}, {literal})"


def insert_sql(columns: Sequence[Column[Any]], key: Sequence[str], *, apart: bool = False) -> str:
    """One statement that inserts what is not there yet and returns the keys of what it inserted."""
    table = columns[0].table
    names = ", ".join(f'"{column.name}"' for column in columns)
    selected = ", ".join(literal_default(column, f'u."{column.name}"') for column in columns)
    keys = ", ".join(f'"{name}"' for name in (*key, "tenant_id"))
    return (
        f"INSERT INTO {table.name} ({names}) SELECT {selected} FROM {rows_of(columns, apart=apart)} "  # noqa: S608 (names from the declaration)
        f"ON CONFLICT ({keys}) DO NOTHING RETURNING {keys}"
    )


def digests_sql(columns: Sequence[Column[Any]]) -> str:
    """One statement that reads the digests of stored keys; `columns` are the key's."""
    table = columns[0].table
    joined = " AND ".join(f'f."{c.name}" = u."{c.name}"' for c in columns)
    keys = ", ".join(f'f."{c.name}"' for c in columns)
    return (
        f"SELECT {keys}, f.content_digest FROM {rows_of(columns)} JOIN {table.name} f ON {joined}"  # noqa: S608 (as above)
    )
