"""Who may use the operator console: people, and the keys of programs. No message is stored here.

Owns no account: none is ever made by a migration, least of all one with a password that others know.
"""

from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from worker.store.schema import (
    Kind,
    created_column,
    metadata,
    tenant_column,
    timestamp_column,
)


def _id() -> Column[Any]:
    return Column("id", Uuid, nullable=False, server_default=text("gen_random_uuid()"))


def _names(name: str) -> Column[Any]:
    return Column(name, JSONB, nullable=False, server_default=text("'[]'::jsonb"))


def _updated() -> Column[Any]:
    return Column(
        "updated_at", DateTime(timezone=True), nullable=False, server_default=text("now()")
    )


users = Table(
    "users",
    metadata,
    _id(),
    tenant_column(),
    Column("username", String(255), nullable=False),
    Column("email", String(320), nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("full_name", String(255)),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("is_superuser", Boolean, nullable=False, server_default=text("false")),
    _names("roles"),
    timestamp_column("last_login"),
    created_column(),
    _updated(),
    PrimaryKeyConstraint("id", "tenant_id"),
    UniqueConstraint("username"),
    UniqueConstraint("email"),
    info={"kind": Kind.ACCOUNT},
)
"""One row a person."""

api_keys = Table(
    "api_keys",
    metadata,
    _id(),
    tenant_column(),
    Column("user_id", Uuid, nullable=False),
    Column("key_hash", Text, nullable=False),
    Column("name", String(255), nullable=False),
    _names("scopes"),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    timestamp_column("expires_at"),
    timestamp_column("last_used_at"),
    created_column(),
    _updated(),
    PrimaryKeyConstraint("id", "tenant_id"),
    # Not `owned_by`: no message makes either, so it need not wait for the commit.
    ForeignKeyConstraint(
        ["user_id", "tenant_id"], ["users.id", "users.tenant_id"], ondelete="CASCADE"
    ),
    UniqueConstraint("key_hash"),
    Index(None, "user_id"),
    info={"kind": Kind.ACCOUNT},
)
"""One row a key; only its hash is kept."""
