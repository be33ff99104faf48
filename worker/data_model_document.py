"""The tables as a document: columns, keys, indexes, shapes of JSON and a diagram of each group of tables.

Owns nothing: everything is derived from the declared tables and from the contracts that fill them. Promises that the
document never says anything else than these do.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.schema import ForeignKeyConstraint

from contracts.envelope import EventData
from worker import families
from worker.store.declaration import Entity, Fact, Family
from worker.store.schema import Kind, metadata, tables_of_kind

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
_COMMON = {
    Kind.FACT: ("event_id", "source", "extensions", "content_digest", "created_at", "recorded_at"),
    Kind.ENTITY: ("placeholder", "clocks", "version", "created_at", "updated_at"),
}
_MEANING = {
    "tenant_id": "the tenant that the row belongs to",
    "event_id": "the message that made the row",
    "source": "who published it",
    "extensions": "attributes of the event that have no column",
    "content_digest": "128 bits over type, tenant and `data`: what makes a repetition a duplicate",
    "created_at": "the time of the event",
    "recorded_at": "when the worker stored it",
    "placeholder": "whether the row was only named so far",
    "clocks": "which message won each column",
    "version": "the number of messages folded in; for optimistic locking",
    "updated_at": "when the row last changed, kept by trigger",
}
_INTRODUCTION = """# Data model

Made from the tables' declarations and their contracts by `make docs`; a test compares it.
What the rules behind it are (facts, entities, placeholders, merging) is in [architecture](architecture.md); the messages are in [contracts](contracts.md).

Every key ends in `tenant_id`, and so does every foreign key: no row can name another tenant's.
Times are `TIMESTAMPTZ`, kept as UTC."""


def markdown() -> str:
    """The whole document."""
    return "\n".join(_lines()).rstrip() + "\n"


def _lines() -> Iterator[str]:
    yield _INTRODUCTION
    yield ""
    yield from _common(
        "fact", Kind.FACT, "One message is one row, and its primary key is the idempotency key."
    )
    yield from _common(
        "entity", Kind.ENTITY, "Messages are recorded in `lifecycle_events` and fold into one row."
    )
    for family in families.families().values():
        yield from _family(family)
    declared = {one.table for family in families.families().values() for one in family.tables}
    rest = [
        table
        for kind in (Kind.ENTITY, Kind.FACT)
        for table in tables_of_kind(kind)
        if table not in declared
    ]
    yield from _group("Of all families", rest, ())
    others = [t for t in metadata.sorted_tables if t.info["kind"] not in (Kind.FACT, Kind.ENTITY)]
    yield from _group("Operational tables", others, ())


def _common(name: str, kind: Kind, told: str) -> Iterator[str]:
    yield from (f"## What every {name} has", "", told, "")
    yield from ("| column | meaning |", "| --- | --- |")
    yield from (f"| `{column}` | {_MEANING[column]} |" for column in _COMMON[kind])
    yield ""


def _family(family: Family) -> Iterator[str]:
    tables = [declared.table for declared in family.tables]
    yield from _group(f"Family `{family.name}`", tables, family.tables)


def _group(
    title: str, tables: Sequence[sa.Table], declared: Sequence[Fact | Entity]
) -> Iterator[str]:
    yield from (f"## {title}", "")
    yield from _diagram(tables)
    for table in dict.fromkeys(tables):
        yield from _table(table, [one for one in declared if one.table is table])


def _diagram(tables: Iterable[sa.Table]) -> Iterator[str]:
    """Who owns whom, as far as foreign keys say; nothing where there are none."""
    relations = [
        f'    {key.referred_table.name} ||--o{{ {table.name} : "{_column_of(key)} ({key.ondelete})"'
        for table in dict.fromkeys(tables)
        for key in sorted(table.foreign_key_constraints, key=_column_of)
    ]
    if relations:
        yield from ("```mermaid", "erDiagram", *relations, "```", "")


def _column_of(key: ForeignKeyConstraint) -> str:
    return next(name for name in key.column_keys if name != "tenant_id")


def _table(table: sa.Table, declared: Sequence[Fact | Entity]) -> Iterator[str]:
    yield from (f"### `{table.name}`", "", _kind(table, declared), "")
    yield from ("| column | type | null | default | more |", "| --- | --- | --- | --- | --- |")
    hidden = set(_COMMON.get(table.info["kind"], ())) if declared else set()
    yield from (_column(column) for column in table.columns if column.name not in hidden)
    yield ""
    yield from _constraints(table)
    yield from _shapes(table, declared)


def _kind(table: sa.Table, declared: Sequence[Fact | Entity]) -> str:
    kind = table.info["kind"]
    events = [
        event
        for one in declared
        for event in ((one.event,) if isinstance(one, Fact) else sorted(one.folds))
    ]
    by = f", filled by {', '.join(f'`{event}`' for event in events)}" if events else ""
    key = ", ".join(f"`{column.name}`" for column in table.primary_key)
    partitions = table.dialect_options["postgresql"]["partition_by"]
    parted = "; partitioned by month" if partitions else ""
    return f"{str(kind).capitalize()}{by}.\nKey: ({key}){parted}."


def _column(column: sa.Column[Any]) -> str:
    kind = column.type.compile(_DIALECT)
    null = "" if column.nullable else "not null"
    return f"| `{column.name}` | {kind} | {null} | {_default(column)} | {_more(column)} |"


def _default(column: sa.Column[Any]) -> str:
    default = getattr(column.server_default, "arg", None)
    return "" if default is None else f"`{_cell(str(getattr(default, 'text', default)))}`"


def _more(column: sa.Column[Any]) -> str:
    if column.computed is not None:
        return f"generated: `{_cell(str(column.computed.sqltext))}`"
    keys = [key for key in column.foreign_keys if key.column.name != "tenant_id"]
    return ", ".join(f"→ `{key.column.table.name}` ({key.ondelete})" for key in keys)


def _constraints(table: sa.Table) -> Iterator[str]:
    checks = sorted(
        (str(one.name), _plain(str(one.sqltext)))
        for one in table.constraints
        if isinstance(one, sa.CheckConstraint) and one.name is not None
    )
    if table.indexes:
        yield "Indexes:"
        yield ""
        for index in sorted(table.indexes, key=lambda one: str(one.name)):
            yield f"- `{index.name}`: {_index(index)}"
        yield ""
    if checks:
        yield "Checks:"
        yield ""
        yield from (f"- `{name}`: `{text}`" for name, text in checks)
        yield ""


def _index(index: sa.Index) -> str:
    options = index.dialect_options["postgresql"]
    using = f"{options['using']} " if options["using"] else ""
    where = f" where `{_plain(str(options['where']))}`" if options["where"] is not None else ""
    names = [_plain(str(getattr(one, "name", one))) for one in index.expressions]
    expressions = ", ".join(f"{name} {options['ops'].get(name, '')}".strip() for name in names)
    unique = "unique " if index.unique else ""
    return f"{unique}{using}({expressions}){where}"


def _shapes(table: sa.Table, declared: Sequence[Fact | Entity]) -> Iterator[str]:
    """What is in the JSON columns, in the words of the contracts that fill them."""
    shapes = [
        f"- {text}" if text.startswith("`") else f"- `{column.name}`: {text}"
        for column in table.columns
        if isinstance(column.type, JSONB) and column.name not in _MEANING
        for text in _told(column.name, declared)
    ]
    if shapes:
        yield from ("JSON:", "", *dict.fromkeys(shapes), "")


def _told(column: str, declared: Sequence[Fact | Entity]) -> list[str]:
    """The sentences of contracts that begin with the column's name; else what the field's description says."""
    contracts = [
        contract
        for family in families.families().values()
        for event, contract in family.contract.types.items()
        if _fills(event, column, declared)
    ]
    said = dict.fromkeys(text for one in contracts for text in _sentences(one, column))
    plain = dict.fromkeys(
        text for one in contracts if (text := one.model_fields[column].description)
    )
    return list(said or plain) or ["any JSON value"]


def _fills(event: str, column: str, declared: Sequence[Fact | Entity]) -> bool:
    for one in declared:
        if isinstance(one, Fact) and one.event == event:
            return column in one.table.c
        if isinstance(one, Entity) and event in one.folds:
            return column in one.folds[event].sets
    return False


def _sentences(contract: type[EventData], column: str) -> Iterator[str]:
    """The sentences of a contract's docstring that begin by naming the column."""
    if column not in contract.model_fields:
        return
    text = " ".join((contract.__doc__ or "").split())
    for sentence in re.split(r"(?<=[.;])\s+(?=`)", text):
        subject = re.match(r"(?:`\w+`(?:, | and )?)+", sentence)
        if subject and f"`{column}`" in subject[0]:
            yield _plain(sentence)


def _plain(text: str) -> str:
    """On one line."""
    return " ".join(text.split())


def _cell(text: str) -> str:
    """On one line, and with no bar that would end the cell."""
    return _plain(text).replace("|", r"\|")
