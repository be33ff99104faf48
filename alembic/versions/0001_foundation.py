"""What every family stands on: the worker's own tables, lifecycle events, shared functions.

Revision: 0001
"""

from alembic import op

from worker.store.ddl import compress_sql, first_partitions_sql

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("""
CREATE TABLE schema_versions (
    version TEXT NOT NULL,
    applied_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    description TEXT NOT NULL,
    checksum TEXT NOT NULL,
    CONSTRAINT pk_schema_versions PRIMARY KEY (version),
    CONSTRAINT ck_schema_versions_checksum CHECK (checksum ~ '^[0-9a-f]{64}$')
)""")
    outbox()
    dead_letters()
    op.execute("""
CREATE TABLE suspects (
    digest BYTEA NOT NULL,
    family TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 1,
    started_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    ended_at TIMESTAMPTZ,
    CONSTRAINT pk_suspects PRIMARY KEY (digest),
    CONSTRAINT ck_suspects_attempts CHECK (attempts >= 0)
)""")
    lifecycle_events()
    functions()


def outbox() -> None:
    op.execute("""
CREATE TABLE outbox (
    id UUID NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    family TEXT NOT NULL,
    payload JSON NOT NULL,
    CONSTRAINT pk_outbox PRIMARY KEY (id)
)""")
    # Rows live for milliseconds: compressing them costs more than it saves, and vacuum must not wait for 20 %.
    op.execute("ALTER TABLE outbox ALTER COLUMN payload SET STORAGE EXTERNAL")
    op.execute("""
ALTER TABLE outbox SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 1000
)""")
    op.execute("CREATE INDEX ix_outbox_created_at ON outbox (created_at)")


def dead_letters() -> None:
    op.execute("""
CREATE TABLE dead_letters (
    id UUID NOT NULL,
    tenant_id TEXT,
    exchange TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    message_id TEXT,
    batch_index INTEGER,
    family TEXT NOT NULL,
    type VARCHAR(255),
    source VARCHAR(255),
    reason VARCHAR(20) NOT NULL,
    errors JSONB NOT NULL DEFAULT '[]'::jsonb,
    headers JSONB NOT NULL DEFAULT '{}'::jsonb,
    properties JSONB NOT NULL DEFAULT '{}'::jsonb,
    properties_raw BYTEA,
    body BYTEA NOT NULL,
    edited_body BYTEA,
    seen INTEGER NOT NULL DEFAULT 1,
    first_seen_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    last_seen_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    replays INTEGER NOT NULL DEFAULT 0,
    last_replayed_at TIMESTAMPTZ,
    resolved_at TIMESTAMPTZ,
    resolution VARCHAR(20),
    CONSTRAINT pk_dead_letters PRIMARY KEY (id),
    CONSTRAINT ck_dead_letters_reason CHECK (reason IN (
        'undecodable', 'invalid', 'unknown_type', 'unroutable', 'conflict', 'unstorable',
        'delivery_limit', 'expired', 'dead_lettered')),
    CONSTRAINT ck_dead_letters_resolution CHECK (resolution IN ('replayed', 'edited', 'discarded')),
    CONSTRAINT ck_dead_letters_resolved CHECK ((resolved_at IS NULL) = (resolution IS NULL)),
    CONSTRAINT ck_dead_letters_batch_index CHECK (batch_index >= 0),
    CONSTRAINT ck_dead_letters_seen CHECK (seen >= 1),
    CONSTRAINT ck_dead_letters_replays CHECK (replays >= 0)
)""")
    op.execute(compress_sql("dead_letters"))
    for column in ("family", "type", "reason", "source", "tenant_id"):
        op.execute(
            f"CREATE INDEX ix_dead_letters_{column}_first_seen_at"
            f" ON dead_letters ({column}, first_seen_at)"
        )
    op.execute("CREATE INDEX ix_dead_letters_first_seen_at ON dead_letters (first_seen_at)")
    op.execute("""
CREATE INDEX ix_dead_letters_unresolved ON dead_letters (family, first_seen_at)
WHERE resolved_at IS NULL""")


def lifecycle_events() -> None:
    op.execute("""
CREATE TABLE lifecycle_events (
    event_id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    time TIMESTAMPTZ NOT NULL,
    entity_type TEXT NOT NULL,
    entity_id TEXT NOT NULL,
    type TEXT NOT NULL,
    attempt INTEGER,
    data JSONB NOT NULL,
    source TEXT NOT NULL,
    extensions JSONB,
    content_digest BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    recorded_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_lifecycle_events PRIMARY KEY (event_id, tenant_id),
    CONSTRAINT ck_lifecycle_events_attempt CHECK (attempt >= 1),
    CONSTRAINT ck_lifecycle_events_content_digest CHECK (octet_length(content_digest) = 16)
) PARTITION BY RANGE (event_id)""")
    op.execute(compress_sql("lifecycle_events"))
    op.execute("""
CREATE INDEX ix_lifecycle_events_entity_type_entity_id_time
ON lifecycle_events (entity_type, entity_id, time)""")
    op.execute(first_partitions_sql("lifecycle_events"))


def functions() -> None:
    op.execute("""
CREATE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$""")
    # `orphans` covers every entity table there is: each migration that adds one calls this afterwards, and each that
    # drops one before, with its name. The view is replaced, never dropped, so that its grants stay.
    op.execute("""
CREATE FUNCTION rebuild_orphans(VARIADIC without text[] DEFAULT '{}') RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    query text;
BEGIN
    SELECT string_agg(
        format(
            'SELECT %L::text AS table_name, %I::text AS entity_id, tenant_id, created_at, '
            'now() - created_at AS age FROM %I WHERE placeholder',
            t.relname, k.attname, t.relname),
        ' UNION ALL ' ORDER BY t.relname)
    INTO query
    FROM pg_class t
    JOIN pg_attribute p ON p.attrelid = t.oid AND p.attname = 'placeholder' AND NOT p.attisdropped
    JOIN pg_index i ON i.indrelid = t.oid AND i.indisprimary
    JOIN pg_attribute k ON k.attrelid = t.oid AND k.attnum = i.indkey[0]
    WHERE t.relnamespace = current_schema()::regnamespace
        AND t.relkind IN ('r', 'p') AND NOT t.relispartition AND t.relname <> ALL (without);
    EXECUTE 'CREATE OR REPLACE VIEW orphans WITH (security_invoker = true) AS ' || coalesce(
        query,
        'SELECT NULL::text AS table_name, NULL::text AS entity_id, NULL::text AS tenant_id, '
        'NULL::timestamptz AS created_at, NULL::interval AS age WHERE false');
END
$$""")
    op.execute("REVOKE ALL ON FUNCTION rebuild_orphans(text[]) FROM PUBLIC")
    op.execute("SELECT rebuild_orphans()")


def downgrade() -> None:
    op.execute("DROP VIEW orphans")
    op.execute("DROP FUNCTION rebuild_orphans(text[])")
    op.execute("DROP FUNCTION set_updated_at()")
    for table in ("lifecycle_events", "suspects", "dead_letters", "outbox", "schema_versions"):
        op.execute(f"DROP TABLE {table}")
