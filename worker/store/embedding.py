"""The type of columns that hold an embedding: VECTOR(1536) where the migration found pgvector, else REAL[].

Owns how the rest of the worker can go without knowing which: messages fill such a column through the function
`to_embedding(text)`, and neighbours are found by `embedding_distance(one, other)`; the migration that makes the columns
makes both functions for the type that they have (docs/decisions.md). Numbers are kept as REAL, as pgvector does.
"""

from typing import Any

from sqlalchemy import types
from sqlalchemy.dialects.postgresql import base

from worker.store.schema import metadata

DIMENSIONS = 1536
"""Numbers of an embedding; `contracts.knowledge` holds messages to it."""


class Embedding(types.UserDefinedType[Any]):
    """An embedding, whichever type the server has for it."""

    cache_ok = True

    def __init__(self, *_dimensions: object) -> None:
        """Takes what reflection finds behind the type's name."""

    def get_col_spec(self, **_kwargs: Any) -> str:
        """The type that every server has."""
        return "REAL[]"


def is_vector_index(name: str) -> bool:
    """Whether an index is one that the database has only with pgvector."""
    return name in {
        f"ix_{table.name}_{column.name}"
        for table in metadata.tables.values()
        for column in table.columns
        if isinstance(column.type, Embedding)
    }


base.ischema_names.setdefault("vector", Embedding)  # so that reflection knows pgvector's type
