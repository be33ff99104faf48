"""docs/data-model.md: what the tables and contracts say, and all of it."""

from functools import cache
from pathlib import Path

from sqlalchemy.dialects.postgresql import JSONB

import worker.families
from worker import data_model_document
from worker.store.schema import Kind, metadata, tables_of_kind

DOCUMENT = Path(__file__).parents[2] / "docs" / "data-model.md"
TABLES = metadata.sorted_tables
markdown = cache(data_model_document.markdown)


def _of(table):
    """The part of the document about a table."""
    [_, text] = markdown().split(f"### `{table.name}`\n")
    return text.partition("\n## ")[0].partition("\n### ")[0]


def test_the_document_in_docs_is_the_one_that_the_tables_make():
    """Whoever changes a table runs `make docs`."""
    assert worker.families
    assert DOCUMENT.read_text() == markdown(), "run: make docs"


def test_every_column_index_and_owner_of_a_table_is_told():
    """What every fact or every entity has is told once, at the top."""
    whole = markdown().partition("## Family")[0]
    for table in TABLES:
        text = _of(table)
        for column in table.columns:
            assert f"| `{column.name}` |" in text or f"| `{column.name}` |" in whole, column
        for index in table.indexes:
            assert f"`{index.name}`" in text
        for key in table.foreign_key_constraints:
            assert f"→ `{key.referred_table.name}` ({key.ondelete})" in text


def test_every_json_column_that_messages_fill_says_what_is_in_it():
    """In the words of the contract; only the data of lifecycle_events is the message's."""
    filled = [
        column
        for table in (*tables_of_kind(Kind.FACT), *tables_of_kind(Kind.ENTITY))
        for column in table.columns
        if isinstance(column.type, JSONB)
        and column.name not in data_model_document._MEANING
        and table.name != "lifecycle_events"
    ]
    assert filled
    for column in filled:
        told = _of(column.table).partition("JSON:")[2]
        assert f"`{column.name}`" in told, column
        assert f"- `{column.name}`: any JSON value\n" not in told, column


def test_a_bar_in_an_expression_ends_no_cell():
    """Expressions that join texts have them."""
    assert data_model_document._cell("a ~ '^(b|c)$'\n  OR d") == r"a ~ '^(b\|c)$' OR d"
