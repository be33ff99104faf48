"""Agents, sessions, decisions, trust, knowledge, conversations, and an audit log that nobody changes.

Revision: 0006
Revises: 0005
"""

from alembic import op

from worker.store.ddl import compress_sql, first_partitions_sql

revision = "0006"
down_revision = "0005"

ENTITY = """
    placeholder BOOLEAN NOT NULL DEFAULT false,
    clocks JSONB NOT NULL DEFAULT '{{}}'::jsonb,
    version INTEGER NOT NULL DEFAULT 0,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_{table} PRIMARY KEY ({key}, tenant_id),
    CONSTRAINT ck_{table}_version CHECK (version >= 0)"""
FACT = """
    event_id UUID NOT NULL,
    source TEXT NOT NULL,
    extensions JSONB,
    content_digest BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    recorded_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_{table} PRIMARY KEY ({key}, tenant_id),
    CONSTRAINT ck_{table}_content_digest CHECK (octet_length(content_digest) = 16)"""
AGENT = """FOREIGN KEY (agent_id, tenant_id) REFERENCES agents (agent_id, tenant_id) ON DELETE"""
SESSION = """FOREIGN KEY (session_id, tenant_id)
        REFERENCES agent_sessions (session_id, tenant_id) ON DELETE"""
VIEWS = (
    "session_activity",
    "conversation_messages",
    "session_trust",
    "active_sessions",
    "agent_performance",
)
TABLES = (
    "agent_audit_seals",
    "agent_audit_log",
    "conversation_history",
    "learning_experiences",
    "knowledge_entries",
    "agent_knowledge",
    "trust_metrics",
    "agent_decisions",
    "agent_sessions",
    "agents",
)


def upgrade() -> None:
    agents()
    agent_sessions()
    agent_decisions()
    trust_metrics()
    knowledge()
    learning_experiences()
    embeddings()
    conversation_history()
    agent_audit_log()
    agent_audit_seals()
    task_views()
    session_views()
    op.execute("SELECT rebuild_orphans()")


def entity(table: str, key: str, columns: str, *, required: tuple[str, ...]) -> None:
    """A table of rows that have a life, with what all of these have."""
    checks = "".join(
        f",\n    CONSTRAINT ck_{table}_{column}_required CHECK (placeholder OR {column} IS NOT NULL)"
        for column in required
    )
    op.execute(f"CREATE TABLE {table} ({columns},{ENTITY.format(table=table, key=key)}{checks}\n)")
    op.execute(compress_sql(table))
    op.execute(f"CREATE INDEX ix_{table}_placeholder ON {table} (created_at) WHERE placeholder")
    op.execute(
        f"CREATE TRIGGER set_updated_at BEFORE UPDATE ON {table}"
        " FOR EACH ROW EXECUTE FUNCTION set_updated_at()"
    )


def fact(table: str, key: str, columns: str, *, partitioned: bool = False) -> None:
    """An append-only table, with what all of these have."""
    by = f" PARTITION BY RANGE ({key})" if partitioned else ""
    op.execute(f"CREATE TABLE {table} ({columns},{FACT.format(table=table, key=key)}\n){by}")
    op.execute(compress_sql(table))


def index(table: str, *columns: str) -> None:
    """An index with the name that its columns give it."""
    name = "_".join((table, *columns))
    op.execute(f"CREATE INDEX ix_{name} ON {table} ({', '.join(columns)})")


def agents() -> None:
    columns = """
    agent_id VARCHAR(255) NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    name VARCHAR(100),
    type VARCHAR(50),
    persona_type VARCHAR(50),
    status VARCHAR(50) DEFAULT 'idle',
    capabilities JSONB,
    configuration JSONB,
    metadata JSONB,
    is_active BOOLEAN DEFAULT true,
    tasks_completed INTEGER DEFAULT 0,
    tasks_failed INTEGER DEFAULT 0,
    average_task_duration_ms DOUBLE PRECISION,
    last_heartbeat TIMESTAMPTZ,
    CONSTRAINT ck_agents_tasks_completed CHECK (tasks_completed >= 0),
    CONSTRAINT ck_agents_tasks_failed CHECK (tasks_failed >= 0),
    CONSTRAINT ck_agents_average_task_duration_ms CHECK (average_task_duration_ms >= 0)"""
    required = ("name", "type", "status", "is_active", "tasks_completed", "tasks_failed")
    entity("agents", "agent_id", columns, required=required)
    index("agents", "type")


def agent_sessions() -> None:
    columns = f"""
    session_id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    agent_id VARCHAR(255),
    user_id VARCHAR(255),
    trust_level INTEGER DEFAULT 0,
    context JSONB,
    session_state VARCHAR(20) DEFAULT 'active',
    started_at TIMESTAMPTZ,
    ended_at TIMESTAMPTZ,
    expires_at TIMESTAMPTZ,
    metadata JSONB,
    CONSTRAINT fk_agent_sessions_agent_id {AGENT} CASCADE,
    CONSTRAINT ck_agent_sessions_trust_level CHECK (trust_level BETWEEN 0 AND 4),
    CONSTRAINT ck_agent_sessions_session_state CHECK (
        session_state IN ('active', 'paused', 'completed', 'expired'))"""
    required = ("agent_id", "trust_level", "session_state", "started_at")
    entity("agent_sessions", "session_id", columns, required=required)
    index("agent_sessions", "agent_id")
    index("agent_sessions", "user_id")
    op.execute("""
CREATE INDEX ix_agent_sessions_active ON agent_sessions (agent_id, expires_at)
WHERE session_state = 'active'""")


def agent_decisions() -> None:
    columns = f"""
    decision_id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    session_id UUID,
    decision_type VARCHAR(50),
    input_context JSONB,
    decision_rationale TEXT,
    action_taken JSONB,
    confidence_score DOUBLE PRECISION,
    user_feedback VARCHAR(20),
    execution_time_ms BIGINT,
    CONSTRAINT fk_agent_decisions_session_id {SESSION} CASCADE,
    CONSTRAINT ck_agent_decisions_confidence_score CHECK (confidence_score BETWEEN 0 AND 1),
    CONSTRAINT ck_agent_decisions_user_feedback CHECK (
        user_feedback IN ('approved', 'rejected', 'modified')),
    CONSTRAINT ck_agent_decisions_execution_time_ms CHECK (execution_time_ms >= 0)"""
    required = ("session_id", "decision_type")
    entity("agent_decisions", "decision_id", columns, required=required)
    index("agent_decisions", "session_id", "created_at")
    index("agent_decisions", "decision_type")


def trust_metrics() -> None:
    columns = f"""
    metric_id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    session_id UUID NOT NULL,
    metric_type VARCHAR(20) NOT NULL,
    metric_value NUMERIC(5, 2) NOT NULL,
    measurement_context JSONB,
    CONSTRAINT fk_trust_metrics_session_id {SESSION} CASCADE,
    CONSTRAINT ck_trust_metrics_metric_type CHECK (
        metric_type IN ('accuracy', 'autonomy', 'complexity')),
    CONSTRAINT ck_trust_metrics_metric_value CHECK (
        metric_value >= 0 AND metric_value <=
        CASE metric_type WHEN 'complexity' THEN 10 ELSE 100 END)"""
    fact("trust_metrics", "metric_id", columns)
    index("trust_metrics", "session_id", "metric_type", "created_at")
    index("trust_metrics", "created_at")


def knowledge() -> None:
    columns = f"""
    knowledge_id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    agent_id VARCHAR(255),
    knowledge_type VARCHAR(20),
    domain VARCHAR(100),
    content JSONB,
    embedding REAL[],
    usage_count INTEGER DEFAULT 0,
    success_rate DOUBLE PRECISION,
    last_used_at TIMESTAMPTZ,
    CONSTRAINT fk_agent_knowledge_agent_id {AGENT} CASCADE,
    CONSTRAINT ck_agent_knowledge_knowledge_type CHECK (
        knowledge_type IN ('pattern', 'solution', 'preference')),
    CONSTRAINT ck_agent_knowledge_usage_count CHECK (usage_count >= 0),
    CONSTRAINT ck_agent_knowledge_success_rate CHECK (success_rate BETWEEN 0 AND 1)"""
    required = ("agent_id", "knowledge_type", "content", "usage_count")
    entity("agent_knowledge", "knowledge_id", columns, required=required)
    index("agent_knowledge", "agent_id", "knowledge_type")
    index("agent_knowledge", "domain")
    columns = """
    id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    entity_type VARCHAR(50),
    entity_name VARCHAR(255),
    properties JSONB,
    embedding REAL[],
    external_graph_id VARCHAR(255)"""
    entity("knowledge_entries", "id", columns, required=("entity_type", "entity_name"))
    index("knowledge_entries", "entity_type", "entity_name")
    index("knowledge_entries", "external_graph_id")


def learning_experiences() -> None:
    columns = f"""
    id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    agent_id VARCHAR(255) NOT NULL,
    task_id UUID,
    experience_type VARCHAR(50) NOT NULL,
    input_data JSONB,
    output_data JSONB,
    success BOOLEAN,
    confidence DOUBLE PRECISION,
    learning_points JSONB,
    feedback JSONB,
    CONSTRAINT fk_learning_experiences_agent_id {AGENT} CASCADE,
    CONSTRAINT fk_learning_experiences_task_id FOREIGN KEY (task_id, tenant_id)
        REFERENCES tasks (task_id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT ck_learning_experiences_confidence CHECK (confidence BETWEEN 0 AND 1)"""
    fact("learning_experiences", "id", columns)
    index("learning_experiences", "agent_id", "created_at")
    index("learning_experiences", "task_id")


def embeddings() -> None:
    # Every server has REAL[], searched exactly. Where pgvector is there, columns, functions and indexes become its own:
    # now, or whenever somebody has installed it and calls use_pgvector(). Nothing else has to know which it is.
    op.execute("""
CREATE FUNCTION to_embedding(numbers text) RETURNS real[] LANGUAGE sql STABLE STRICT AS
$$SELECT translate(numbers, '[]', '{}')::real[]$$""")
    op.execute("""
CREATE FUNCTION embedding_distance(one real[], other real[]) RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
$$SELECT 1 - sum(a::float8 * b) / nullif(sqrt(sum(a::float8 * a)) * sqrt(sum(b::float8 * b)), 0)
FROM unnest(one, other) AS n(a, b)$$""")
    op.execute("""
CREATE FUNCTION use_pgvector() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    name text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'vector') OR EXISTS (
        SELECT FROM pg_proc WHERE proname = 'to_embedding' AND prorettype <> 'real[]'::regtype
            AND pronamespace = current_schema()::regnamespace)
    THEN
        RETURN false;
    END IF;
    DROP FUNCTION to_embedding(text);
    DROP FUNCTION embedding_distance(real[], real[]);
    CREATE FUNCTION to_embedding(numbers text) RETURNS vector LANGUAGE sql STABLE STRICT AS
        'SELECT numbers::vector';
    CREATE FUNCTION embedding_distance(one vector, other vector) RETURNS double precision
        LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS 'SELECT one <=> other';
    FOREACH name IN ARRAY ARRAY['agent_knowledge', 'knowledge_entries'] LOOP
        EXECUTE format('ALTER TABLE %I ALTER COLUMN embedding TYPE vector(1536)', name);
        IF EXISTS (SELECT FROM pg_am WHERE amname = 'hnsw') THEN
            EXECUTE format(
                'CREATE INDEX ix_%s_embedding ON %I USING hnsw (embedding vector_cosine_ops)', name, name);
        END IF;
    END LOOP;
    RETURN true;
END
$$""")
    op.execute("REVOKE ALL ON FUNCTION use_pgvector() FROM PUBLIC")
    op.execute("""
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector' AND installed_version IS NULL) THEN
        CREATE EXTENSION vector;
        COMMENT ON FUNCTION use_pgvector() IS 'The migration installed pgvector.';
    END IF;
    PERFORM use_pgvector();
EXCEPTION WHEN insufficient_privilege OR undefined_file THEN
    RAISE NOTICE 'embeddings are kept as REAL[], because pgvector cannot be installed: %', SQLERRM;
END
$$""")


def conversation_history() -> None:
    columns = f"""
    message_id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    session_id UUID NOT NULL,
    role VARCHAR(20) NOT NULL,
    content TEXT NOT NULL,
    message_type VARCHAR(30) NOT NULL DEFAULT 'text',
    parent_message_id UUID,
    tokens_used INTEGER,
    model_used VARCHAR(50),
    CONSTRAINT fk_conversation_history_session_id {SESSION} CASCADE,
    CONSTRAINT ck_conversation_history_role CHECK (role IN ('user', 'agent', 'system', 'tool')),
    CONSTRAINT ck_conversation_history_tokens_used CHECK (tokens_used >= 0)"""
    fact("conversation_history", "message_id", columns, partitioned=True)
    index("conversation_history", "session_id", "created_at")
    op.execute(first_partitions_sql("conversation_history"))


def agent_audit_log() -> None:
    columns = f"""
    audit_id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    agent_id VARCHAR(255) NOT NULL,
    session_id UUID,
    action_type VARCHAR(50) NOT NULL,
    action_details JSONB,
    risk_level VARCHAR(20) NOT NULL DEFAULT 'low',
    user_id VARCHAR(255),
    timestamp TIMESTAMPTZ NOT NULL,
    ip_address INET,
    user_agent TEXT,
    CONSTRAINT fk_agent_audit_log_agent_id {AGENT} RESTRICT,
    CONSTRAINT fk_agent_audit_log_session_id {SESSION} RESTRICT,
    CONSTRAINT ck_agent_audit_log_risk_level CHECK (
        risk_level IN ('low', 'medium', 'high', 'critical'))"""
    fact("agent_audit_log", "audit_id", columns, partitioned=True)
    index("agent_audit_log", "agent_id", "timestamp")
    index("agent_audit_log", "session_id")
    index("agent_audit_log", "risk_level")
    index("agent_audit_log", "timestamp")
    index("agent_audit_log", "tenant_id", "recorded_at")
    op.execute(first_partitions_sql("agent_audit_log"))
    op.execute("""
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$""")
    op.execute("""
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON agent_audit_log
FOR EACH ROW EXECUTE FUNCTION refuse_change()""")
    # A trigger of a statement is not handed down to partitions; `maintain` gives it to those that it makes.
    op.execute("""
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT relid::text FROM pg_partition_tree('agent_audit_log') LOOP
        EXECUTE format(
            'CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON %s EXECUTE FUNCTION refuse_change()', name);
    END LOOP;
END
$$""")


def agent_audit_seals() -> None:
    op.execute("""
CREATE TABLE agent_audit_seals (
    tenant_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    hour TIMESTAMPTZ NOT NULL,
    audit_ids UUID[] NOT NULL,
    row_digests BYTEA NOT NULL,
    previous BYTEA NOT NULL,
    seal BYTEA NOT NULL,
    sealed_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    retired_at TIMESTAMPTZ,
    CONSTRAINT pk_agent_audit_seals PRIMARY KEY (tenant_id, number),
    CONSTRAINT ck_agent_audit_seals_number CHECK (number >= 1),
    CONSTRAINT ck_agent_audit_seals_row_digests CHECK (
        octet_length(row_digests) = 32 * cardinality(audit_ids)),
    CONSTRAINT ck_agent_audit_seals_seal CHECK (
        octet_length(previous) = 32 AND octet_length(seal) = 32)
)""")
    index("agent_audit_seals", "hour")
    op.execute("""
CREATE TRIGGER refuse_change BEFORE DELETE OR UPDATE
    OF tenant_id, number, hour, audit_ids, row_digests, previous, seal, sealed_at
ON agent_audit_seals FOR EACH ROW EXECUTE FUNCTION refuse_change()""")
    op.execute("""
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON agent_audit_seals EXECUTE FUNCTION refuse_change()""")
    # Columns one by one, and times as numbers: a later column, or a session's settings, must not change a digest.
    op.execute("""
CREATE FUNCTION agent_audit_digest(a agent_audit_log) RETURNS bytea LANGUAGE sql STABLE AS
$$SELECT sha256(convert_to(jsonb_build_array(
    a.audit_id, a.tenant_id, a.agent_id, a.session_id, a.action_type, a.action_details, a.risk_level,
    a.user_id, extract(epoch FROM a.timestamp), host(a.ip_address), a.user_agent, a.event_id, a.source,
    a.extensions, encode(a.content_digest, 'hex'), extract(epoch FROM a.created_at),
    extract(epoch FROM a.recorded_at))::text, 'UTF8'))$$""")


def task_views() -> None:
    # Columns may be added at the end of a view without dropping it, so that its grants stay.
    op.execute("""
CREATE OR REPLACE VIEW active_tasks WITH (security_invoker = true) AS
SELECT t.task_id, t.tenant_id, t.parent_task_id, t.project_id, t.type, t.request_text, t.created_by,
    t.agent_id, t.status, t.priority, t.attempt, t.retry_count, t.max_retries, t.timeout_seconds,
    t.placeholder, t.created_at, t.approved_at, t.started_at, t.updated_at,
    a.name AS agent_name, a.type AS agent_type
FROM tasks t
LEFT JOIN agents a ON a.agent_id = t.agent_id AND a.tenant_id = t.tenant_id
WHERE t.status IN ('pending', 'approved', 'executing', 'retrying')
    AND (NOT t.placeholder OR t.version > 0)""")
    # What an agent says of itself, and what its tasks say of it.
    op.execute("""
CREATE VIEW agent_performance WITH (security_invoker = true) AS
SELECT a.agent_id, a.tenant_id, a.name, a.type, a.persona_type, a.status, a.is_active,
    a.tasks_completed, a.tasks_failed,
    a.tasks_completed::float8 / nullif(a.tasks_completed::bigint + a.tasks_failed, 0) AS success_rate,
    a.average_task_duration_ms, a.last_heartbeat,
    coalesce(t.completed, 0) AS observed_tasks_completed,
    coalesce(t.failed, 0) AS observed_tasks_failed,
    t.completed::float8 / (t.completed + t.failed) AS observed_success_rate,
    t.average_duration_ms::float8 AS observed_average_task_duration_ms
FROM agents a
LEFT JOIN (
    SELECT agent_id, tenant_id, count(*) FILTER (WHERE status = 'completed') AS completed,
        count(*) FILTER (WHERE status = 'failed') AS failed, avg(duration_ms) AS average_duration_ms
    FROM tasks
    WHERE status IN ('completed', 'failed') AND agent_id IS NOT NULL
    GROUP BY agent_id, tenant_id
) t ON t.agent_id = a.agent_id AND t.tenant_id = a.tenant_id""")


def session_views() -> None:
    op.execute("""
CREATE VIEW active_sessions WITH (security_invoker = true) AS
SELECT session_id, tenant_id, agent_id, user_id, trust_level, session_state, started_at, expires_at
FROM agent_sessions
WHERE session_state IN ('active', 'paused') AND NOT placeholder
    AND (expires_at IS NULL OR expires_at > now())""")
    # Only what was decided since the present trust level was set counts towards the next; a clock holds its time.
    # Confidence is that of the rule of succession: one half where nothing is known.
    op.execute("""
CREATE VIEW session_trust WITH (security_invoker = true) AS
SELECT s.session_id, s.tenant_id, s.agent_id, s.trust_level, s.session_state,
    d.decisions, d.successful, d.unsuccessful, d.successful_in_a_row,
    (d.successful + 1)::float8 / (d.successful + d.unsuccessful + 2) AS confidence,
    d.successful_in_a_row >= 5 AS raised,
    least(s.trust_level + (d.successful_in_a_row >= 5)::integer, 4) AS earned_level,
    m.accuracy, m.autonomy, m.complexity
FROM agent_sessions s
CROSS JOIN LATERAL (
    SELECT count(*) AS decisions,
        count(*) FILTER (WHERE user_feedback = 'approved') AS successful,
        count(*) FILTER (WHERE user_feedback <> 'approved') AS unsuccessful,
        count(*) FILTER (WHERE user_feedback = 'approved' AND unsuccessful_since = 0)
            AS successful_in_a_row
    FROM (
        SELECT user_feedback, count(*) FILTER (WHERE user_feedback <> 'approved')
            OVER (ORDER BY created_at DESC, decision_id DESC) AS unsuccessful_since
        FROM agent_decisions
        WHERE session_id = s.session_id AND tenant_id = s.tenant_id AND NOT placeholder
            AND created_at >= CASE
                WHEN s.clocks->>'trust_level' <> s.clocks->>'created'
                THEN (substr(s.clocks->>'trust_level', 13, 26) || '+00')::timestamptz
                ELSE '-infinity' END
    ) since_level
) d
CROSS JOIN LATERAL (
    SELECT (array_agg(metric_value ORDER BY created_at DESC, metric_id DESC)
            FILTER (WHERE metric_type = 'accuracy'))[1] AS accuracy,
        (array_agg(metric_value ORDER BY created_at DESC, metric_id DESC)
            FILTER (WHERE metric_type = 'autonomy'))[1] AS autonomy,
        (array_agg(metric_value ORDER BY created_at DESC, metric_id DESC)
            FILTER (WHERE metric_type = 'complexity'))[1] AS complexity
    FROM trust_metrics
    WHERE session_id = s.session_id AND tenant_id = s.tenant_id
) m""")
    # What is late follows from the session as it is known now, whichever of the two came first.
    op.execute("""
CREATE VIEW conversation_messages WITH (security_invoker = true) AS
SELECT h.message_id, h.tenant_id, h.session_id, h.role, h.content, h.message_type,
    h.parent_message_id, h.tokens_used, h.model_used, h.event_id, h.source, h.extensions,
    h.created_at, h.recorded_at,
    coalesce(h.created_at > least(s.ended_at, s.expires_at), false) AS late
FROM conversation_history h
JOIN agent_sessions s ON s.session_id = h.session_id AND s.tenant_id = h.tenant_id""")
    op.execute("""
CREATE VIEW session_activity WITH (security_invoker = true) AS
SELECT e.session_id, e.tenant_id, e.table_name, e.id, e.created_at,
    coalesce(e.created_at > least(s.ended_at, s.expires_at), false) AS late
FROM (
    SELECT 'conversation_history' AS table_name, message_id AS id, session_id, tenant_id, created_at
    FROM conversation_history
    UNION ALL
    SELECT 'agent_decisions', decision_id, session_id, tenant_id, created_at FROM agent_decisions
    UNION ALL
    SELECT 'trust_metrics', metric_id, session_id, tenant_id, created_at FROM trust_metrics
    UNION ALL
    SELECT 'agent_audit_log', audit_id, session_id, tenant_id, timestamp FROM agent_audit_log
) e
JOIN agent_sessions s ON s.session_id = e.session_id AND s.tenant_id = e.tenant_id""")


def downgrade() -> None:
    op.execute(
        "SELECT rebuild_orphans('agents', 'agent_sessions', 'agent_decisions', 'agent_knowledge',"
        " 'knowledge_entries')"
    )
    for view in VIEWS:
        op.execute(f"DROP VIEW {view}")
    op.execute("DROP VIEW active_tasks")
    op.execute("""
CREATE VIEW active_tasks WITH (security_invoker = true) AS
SELECT task_id, tenant_id, parent_task_id, project_id, type, request_text, created_by, agent_id,
    status, priority, attempt, retry_count, max_retries, timeout_seconds, placeholder,
    created_at, approved_at, started_at, updated_at
FROM tasks
WHERE status IN ('pending', 'approved', 'executing', 'retrying')
    AND (NOT placeholder OR version > 0)""")
    op.execute("DROP FUNCTION agent_audit_digest(agent_audit_log)")
    for table in TABLES:
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP FUNCTION refuse_change()")
    op.execute("DROP FUNCTION embedding_distance")
    op.execute("DROP FUNCTION to_embedding")
    op.execute("""
DO $$
BEGIN
    IF obj_description('use_pgvector()'::regprocedure) IS NOT NULL THEN
        DROP EXTENSION vector;
    END IF;
EXCEPTION WHEN dependent_objects_still_exist THEN
    RAISE NOTICE 'pgvector stays, because others use it';
END
$$""")
    op.execute("DROP FUNCTION use_pgvector()")
