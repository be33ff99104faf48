"""The one MetaData, and the columns and constraints that every table has.

Owns how names are made (`ck_<table>_<what>`, `ix_<table>_<columns>`, `fk_<table>_<column>`), what a fact and an entity
carry beside their own columns, and what a table says about itself in `info`. Promises that two tables of one kind
cannot differ in these. The database itself is made by the migrations; a test holds the two together.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)
"""Every table of the worker. `import worker.families` completes it."""

DIGEST_BYTES = 16
"""Length of `content_digest`: 128 bits."""


class Kind(StrEnum):
    """How messages reach a table."""

    FACT = "fact"
    """Append-only: one message is one row, and the primary key is the idempotency key."""

    ENTITY = "entity"
    """Has a life: messages are recorded in `lifecycle_events` and fold into one row."""

    OPERATIONAL = "operational"
    """The worker's own book-keeping."""

    ACCOUNT = "account"
    """Who may use the operator console: no business of the worker, which may not even read it."""


def key_column(member: str) -> Column[Any]:
    """A primary key `id`, as the page names it, for what messages name by a member of a longer name, such as `run_id`."""
    return Column("id", Uuid, nullable=False, info={"member": member})


def member_of(column: Column[Any]) -> str:
    """The member of a message's data that fills a column: the one of its name, unless the column says another."""
    return str(column.info.get("member", column.name))


def tenant_column() -> Column[str]:
    """The tenant that a row belongs to; the second column of every primary and foreign key."""
    return Column("tenant_id", Text, nullable=False, server_default="default")


def timestamp_column(name: str, *, nullable: bool = True) -> Column[Any]:
    """A TIMESTAMPTZ column without a default."""
    return Column(name, DateTime(timezone=True), nullable=nullable)


def created_column() -> Column[Any]:
    """`created_at`, the event's time (the default serves rows written by hand)."""
    return Column(
        "created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")
    )


def json_column(name: str, *, nullable: bool = True) -> Column[Any]:
    """A JSONB column whose Python None is SQL NULL, never JSON null."""
    return Column(name, JSONB(none_as_null=True), nullable=nullable)


def fact_columns(*, event_is_key: bool = False) -> tuple[Any, ...]:
    """What every fact carries beside its own columns; `event_is_key` where `event_id` is the primary key already."""
    own_event: list[Column[Any]] = (
        [] if event_is_key else [Column("event_id", Uuid, nullable=False)]
    )
    return (
        *own_event,
        Column("source", Text, nullable=False),
        json_column("extensions"),
        Column("content_digest", LargeBinary, nullable=False),
        created_column(),
        Column(
            "recorded_at", DateTime(timezone=True), nullable=False, server_default=text("now()")
        ),
        CheckConstraint(f"octet_length(content_digest) = {DIGEST_BYTES}", name="content_digest"),
    )


def entity_columns() -> tuple[Any, ...]:
    """What every entity carries beside its own columns: whether it was only named so far, and how it was folded."""
    return (
        Column("placeholder", Boolean, nullable=False, server_default=text("false")),
        Column("clocks", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
        Column("version", Integer, nullable=False, server_default=text("0")),
        created_column(),
        Column("updated_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
        CheckConstraint("version >= 0", name="version"),
    )


def one_of(column: str, values: Iterable[str]) -> CheckConstraint:
    """CHECK that a status is one of those that are known."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def required(*columns: str) -> tuple[CheckConstraint, ...]:
    """CHECKs that a row which is more than a placeholder has these columns."""
    return tuple(
        CheckConstraint(f"placeholder OR {column} IS NOT NULL", name=f"{column}_required")
        for column in columns
    )


def owned_by(column: str, parent: str, *, ondelete: str = "CASCADE") -> ForeignKeyConstraint:
    """The foreign key (column, tenant_id) to a parent such as `tasks.task_id`, within the tenant.

    It is checked at the commit, because rows are written before the placeholders that they need.
    """
    table, _, _ = parent.partition(".")
    return ForeignKeyConstraint(
        [column, "tenant_id"],
        [parent, f"{table}.tenant_id"],
        ondelete=ondelete,
        deferrable=True,
        initially="DEFERRED",
    )


def refers_to(column: str, parent: str) -> ForeignKeyConstraint:
    """The foreign key of a soft reference: where the parent goes, the row stays, and stays with its tenant."""
    return owned_by(column, parent, ondelete=f"SET NULL ({column})")


def tables_of_kind(kind: Kind) -> tuple[Table, ...]:
    """Every table of one kind, parents first."""
    return tuple(table for table in metadata.sorted_tables if table.info.get("kind") == kind)
