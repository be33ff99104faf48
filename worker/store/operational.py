"""The worker's own tables: confirmations, rejected messages, suspects, the loss ledger, and which migrations ran.

They are not facts: no message is stored in them as data. `outbox`, `suspects` and `schema_versions` know no tenant.
Nor is `tenant_roles` a tenant's: it says which tenant a login role reads.
"""

from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import INT8MULTIRANGE, JSONB

from worker.store.schema import Kind, metadata, one_of, tenant_column, timestamp_column

REASONS = (
    "undecodable",
    "invalid",
    "unknown_type",
    "unroutable",
    "conflict",
    "unstorable",
    "delivery_limit",
    "expired",
    "dead_lettered",
)
"""Why a message is in `dead_letters`; `dead_lettered` is what the broker itself dead-lettered."""

RESOLUTIONS = ("replayed", "edited", "discarded")
"""How a dead letter ended."""

schema_versions = Table(
    "schema_versions",
    metadata,
    Column("version", Text, primary_key=True),
    Column("applied_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("description", Text, nullable=False),
    Column("checksum", Text, nullable=False),
    CheckConstraint("checksum ~ '^[0-9a-f]{64}$'", name="checksum"),
    info={"kind": Kind.OPERATIONAL},
)
"""One row a migration that ran; `checksum` is the SHA-256 of its file."""

outbox = Table(
    "outbox",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("family", Text, nullable=False),
    Column("payload", JSON(none_as_null=True), nullable=False),
    Index(None, "created_at"),
    info={"kind": Kind.OPERATIONAL},
)
"""One row a transaction whose confirmations are not yet with the broker."""

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Text),
    Column("exchange", Text, nullable=False),
    Column("routing_key", Text, nullable=False),
    Column("message_id", Text),
    Column("batch_index", Integer),
    Column("family", Text, nullable=False),
    Column("type", String(255)),
    Column("source", String(255)),
    Column("reason", String(20), nullable=False),
    Column("errors", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    Column("headers", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("properties", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("properties_raw", LargeBinary),
    Column("body", LargeBinary, nullable=False),
    Column("edited_body", LargeBinary),
    Column("seen", Integer, nullable=False, server_default=text("1")),
    Column("first_seen_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("last_seen_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("replays", Integer, nullable=False, server_default=text("0")),
    timestamp_column("last_replayed_at"),
    timestamp_column("resolved_at"),
    Column("resolution", String(20)),
    one_of("reason", REASONS),
    one_of("resolution", RESOLUTIONS),
    CheckConstraint("(resolved_at IS NULL) = (resolution IS NULL)", name="resolved"),
    Column("sequences", JSONB(none_as_null=True)),
    CheckConstraint("batch_index >= 0", name="batch_index"),
    CheckConstraint("seen >= 1", name="seen"),
    CheckConstraint("replays >= 0", name="replays"),
    Index(None, "family", "first_seen_at"),
    Index(None, "type", "first_seen_at"),
    Index(None, "reason", "first_seen_at"),
    Index(None, "source", "first_seen_at"),
    Index(None, "tenant_id", "first_seen_at"),
    Index(None, "first_seen_at"),
    Index(
        "ix_dead_letters_unresolved",
        "family",
        "first_seen_at",
        postgresql_where=text("resolved_at IS NULL"),
    ),
    info={"kind": Kind.OPERATIONAL},
)
"""One row a rejected message: its whole body, why, and what was done about it."""

suspects = Table(
    "suspects",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("family", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("1")),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    timestamp_column("ended_at"),
    CheckConstraint("attempts >= 0", name="attempts"),
    info={"kind": Kind.OPERATIONAL},
)
"""Messages that may have killed a worker: one row a message that was handled alone, with the attempts that never ended."""


def _sequences(name: str) -> Column[Any]:
    return Column(name, INT8MULTIRANGE, nullable=False, server_default=text("'{}'::int8multirange"))


loss_ledger = Table(
    "loss_ledger",
    metadata,
    Column("epoch", Uuid, nullable=False),
    Column("id", Uuid, nullable=False, server_default=text("gen_random_uuid()")),
    tenant_column(),
    Column("source", Text, nullable=False),
    _sequences("persisted"),
    _sequences("doubled"),
    _sequences("duplicate"),
    _sequences("rejected"),
    Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    PrimaryKeyConstraint("epoch", "id"),
    info={"kind": Kind.OPERATIONAL},
)
"""Which of a source's numbered events were seen: one row a batch and (tenant, source, epoch), folded by `maintain`.

`persisted`: stored by this batch; `doubled`: those of them that were stored more than once, under different keys;
`duplicate`: stored before; `rejected`: became dead letters.
"""

tenant_roles = Table(
    "tenant_roles",
    metadata,
    Column("role_name", Text, primary_key=True),
    Column("tenant_id", Text),
    Column("session_id", Uuid),
    Column("every_session", Boolean, nullable=False, server_default=text("false")),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    CheckConstraint("tenant_id ~ '^[A-Za-z0-9_-]{1,64}$'", name="tenant_id"),
    CheckConstraint("session_id IS NULL OR NOT every_session", name="sessions"),
    info={"kind": Kind.OPERATIONAL},
)
"""Which tenant a login role of `worker_reader` reads, and which of its sessions; only the owner writes here.

No tenant: the role is an application that is trusted to say for whom it reads (`app.tenant_id`).
"""
