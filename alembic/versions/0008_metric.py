"""Figures of the platform, and the accounts of the operator console.

Revision: 0008
Revises: 0007
"""

from alembic import op

from worker.store.ddl import compress_sql, first_partitions_sql

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    metrics()
    users()
    api_keys()


def metrics() -> None:
    op.execute("""
CREATE TABLE metrics (
    id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    name VARCHAR(200) NOT NULL,
    value DOUBLE PRECISION NOT NULL,
    tags JSONB,
    metadata JSONB,
    timestamp TIMESTAMPTZ NOT NULL,
    event_id UUID NOT NULL,
    source TEXT NOT NULL,
    extensions JSONB,
    content_digest BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    recorded_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_metrics PRIMARY KEY (id, tenant_id),
    CONSTRAINT ck_metrics_content_digest CHECK (octet_length(content_digest) = 16)
) PARTITION BY RANGE (id)""")
    op.execute(compress_sql("metrics"))
    op.execute("CREATE INDEX ix_metrics_name_timestamp ON metrics (name, timestamp DESC)")
    op.execute("CREATE INDEX ix_metrics_tags ON metrics USING gin (tags)")
    op.execute(first_partitions_sql("metrics"))


def users() -> None:
    op.execute("""
CREATE TABLE users (
    id UUID NOT NULL DEFAULT gen_random_uuid(),
    tenant_id TEXT NOT NULL DEFAULT 'default',
    username VARCHAR(255) NOT NULL,
    email VARCHAR(320) NOT NULL,
    password_hash TEXT NOT NULL,
    full_name VARCHAR(255),
    is_active BOOLEAN NOT NULL DEFAULT true,
    is_superuser BOOLEAN NOT NULL DEFAULT false,
    roles JSONB NOT NULL DEFAULT '[]'::jsonb,
    last_login TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_users PRIMARY KEY (id, tenant_id),
    CONSTRAINT uq_users_username UNIQUE (username),
    CONSTRAINT uq_users_email UNIQUE (email)
)""")
    op.execute(compress_sql("users"))
    op.execute("""
CREATE TRIGGER set_updated_at BEFORE UPDATE ON users
FOR EACH ROW EXECUTE FUNCTION set_updated_at()""")


def api_keys() -> None:
    op.execute("""
CREATE TABLE api_keys (
    id UUID NOT NULL DEFAULT gen_random_uuid(),
    tenant_id TEXT NOT NULL DEFAULT 'default',
    user_id UUID NOT NULL,
    key_hash TEXT NOT NULL,
    name VARCHAR(255) NOT NULL,
    scopes JSONB NOT NULL DEFAULT '[]'::jsonb,
    is_active BOOLEAN NOT NULL DEFAULT true,
    expires_at TIMESTAMPTZ,
    last_used_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_api_keys PRIMARY KEY (id, tenant_id),
    CONSTRAINT uq_api_keys_key_hash UNIQUE (key_hash),
    CONSTRAINT fk_api_keys_user_id FOREIGN KEY (user_id, tenant_id)
        REFERENCES users (id, tenant_id) ON DELETE CASCADE
)""")
    op.execute(compress_sql("api_keys"))
    op.execute("""
CREATE TRIGGER set_updated_at BEFORE UPDATE ON api_keys
FOR EACH ROW EXECUTE FUNCTION set_updated_at()""")
    op.execute("CREATE INDEX ix_api_keys_user_id ON api_keys (user_id)")


def downgrade() -> None:
    op.execute("DROP TABLE api_keys")
    op.execute("DROP TABLE users")
    op.execute("DROP TABLE metrics")
