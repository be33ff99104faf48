"""Tasks, what they depend on, and what is odd about them.

Revision: 0002
Revises: 0001
"""

from alembic import op

from worker.store.ddl import compress_sql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    tasks()
    task_dependencies()
    views()
    op.execute("SELECT rebuild_orphans()")


def tasks() -> None:
    op.execute("""
CREATE TABLE tasks (
    task_id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    parent_task_id UUID,
    project_id UUID,
    type VARCHAR(100),
    request_text TEXT,
    created_by VARCHAR(255),
    agent_id VARCHAR(255),
    status VARCHAR(20) DEFAULT 'pending',
    priority INTEGER DEFAULT 5,
    attempt INTEGER DEFAULT 1,
    retry_count INTEGER GENERATED ALWAYS AS (attempt - 1) STORED,
    max_retries INTEGER DEFAULT 3,
    timeout_seconds INTEGER DEFAULT 300,
    input JSONB,
    output JSONB,
    parameters JSONB,
    metadata JSONB,
    estimated_resources JSONB,
    actual_resources JSONB,
    external_ai_used JSONB,
    error_message TEXT,
    approved_at TIMESTAMPTZ,
    started_at TIMESTAMPTZ,
    completed_at TIMESTAMPTZ,
    duration_ms BIGINT GENERATED ALWAYS AS (
        (EXTRACT(EPOCH FROM completed_at - started_at) * 1000)::bigint
    ) STORED,
    placeholder BOOLEAN NOT NULL DEFAULT false,
    clocks JSONB NOT NULL DEFAULT '{}'::jsonb,
    version INTEGER NOT NULL DEFAULT 0,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_tasks PRIMARY KEY (task_id, tenant_id),
    CONSTRAINT fk_tasks_parent_task_id FOREIGN KEY (parent_task_id, tenant_id)
        REFERENCES tasks (task_id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT ck_tasks_status CHECK (status IN (
        'pending', 'approved', 'executing', 'completed', 'failed', 'rejected', 'cancelled',
        'retrying')),
    CONSTRAINT ck_tasks_priority CHECK (priority BETWEEN 1 AND 10),
    CONSTRAINT ck_tasks_attempt CHECK (attempt >= 1),
    CONSTRAINT ck_tasks_max_retries CHECK (max_retries >= 0),
    CONSTRAINT ck_tasks_timeout_seconds CHECK (timeout_seconds >= 0),
    CONSTRAINT ck_tasks_version CHECK (version >= 0),
    CONSTRAINT ck_tasks_request_text_required CHECK (placeholder OR request_text IS NOT NULL),
    CONSTRAINT ck_tasks_status_required CHECK (placeholder OR status IS NOT NULL),
    CONSTRAINT ck_tasks_priority_required CHECK (placeholder OR priority IS NOT NULL),
    CONSTRAINT ck_tasks_attempt_required CHECK (placeholder OR attempt IS NOT NULL),
    CONSTRAINT ck_tasks_max_retries_required CHECK (placeholder OR max_retries IS NOT NULL),
    CONSTRAINT ck_tasks_timeout_seconds_required CHECK (placeholder OR timeout_seconds IS NOT NULL)
)""")
    op.execute(compress_sql("tasks"))
    op.execute("CREATE INDEX ix_tasks_created_at ON tasks (created_at DESC)")
    op.execute("CREATE INDEX ix_tasks_status ON tasks (status)")
    op.execute("CREATE INDEX ix_tasks_status_priority ON tasks (status, priority DESC)")
    op.execute("CREATE INDEX ix_tasks_type ON tasks (type)")
    op.execute("CREATE INDEX ix_tasks_agent_id ON tasks (agent_id)")
    op.execute("CREATE INDEX ix_tasks_parent_task_id ON tasks (parent_task_id)")
    op.execute("CREATE INDEX ix_tasks_project_id ON tasks (project_id)")
    op.execute("CREATE INDEX ix_tasks_metadata ON tasks USING gin (metadata)")
    op.execute("CREATE INDEX ix_tasks_placeholder ON tasks (created_at) WHERE placeholder")
    op.execute("""
CREATE TRIGGER set_updated_at BEFORE UPDATE ON tasks
FOR EACH ROW EXECUTE FUNCTION set_updated_at()""")


def task_dependencies() -> None:
    op.execute("""
CREATE TABLE task_dependencies (
    task_id UUID NOT NULL,
    depends_on_task_id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    dependency_type VARCHAR(50) NOT NULL DEFAULT 'sequential',
    event_id UUID NOT NULL,
    source TEXT NOT NULL,
    extensions JSONB,
    content_digest BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    recorded_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_task_dependencies PRIMARY KEY (task_id, depends_on_task_id, tenant_id),
    CONSTRAINT fk_task_dependencies_task_id FOREIGN KEY (task_id, tenant_id)
        REFERENCES tasks (task_id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT fk_task_dependencies_depends_on_task_id FOREIGN KEY (depends_on_task_id, tenant_id)
        REFERENCES tasks (task_id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT ck_task_dependencies_not_itself CHECK (task_id <> depends_on_task_id),
    CONSTRAINT ck_task_dependencies_content_digest CHECK (octet_length(content_digest) = 16)
)""")
    op.execute(compress_sql("task_dependencies"))
    op.execute("""
CREATE INDEX ix_task_dependencies_depends_on_task_id ON task_dependencies (depends_on_task_id)""")


def views() -> None:
    # Of a placeholder only a status that an event has set counts: a task that is merely named is not active.
    op.execute("""
CREATE VIEW active_tasks WITH (security_invoker = true) AS
SELECT task_id, tenant_id, parent_task_id, project_id, type, request_text, created_by, agent_id,
    status, priority, attempt, retry_count, max_retries, timeout_seconds, placeholder,
    created_at, approved_at, started_at, updated_at
FROM tasks
WHERE status IN ('pending', 'approved', 'executing', 'retrying')
    AND (NOT placeholder OR version > 0)""")
    op.execute("""
CREATE VIEW task_anomalies WITH (security_invoker = true) AS
SELECT task_id, tenant_id, 'finished_before_started' AS anomaly,
    jsonb_build_object('started_at', started_at, 'completed_at', completed_at) AS details
FROM tasks WHERE completed_at < started_at
UNION ALL
SELECT task_id, tenant_id, 'completed_without_start',
    jsonb_build_object('completed_at', completed_at)
FROM tasks WHERE status = 'completed' AND started_at IS NULL
UNION ALL
SELECT task_id, tenant_id, 'started_before_created',
    jsonb_build_object('created_at', created_at, 'started_at', started_at)
FROM tasks WHERE started_at < created_at AND NOT placeholder
UNION ALL
-- A failure of an older attempt is how retries begin, unless it came after the newer attempt did.
SELECT t.task_id, t.tenant_id, 'older_attempt_ended',
    jsonb_build_object('event_id', e.event_id, 'type', e.type, 'time', e.time,
        'attempt', coalesce(e.attempt, 1), 'attempt_of_task', t.attempt)
FROM tasks t
JOIN lifecycle_events e ON e.entity_type = 'task' AND e.entity_id = t.task_id::text
    AND e.tenant_id = t.tenant_id
WHERE t.attempt > 1
    AND (
        e.type = 'task.completed' AND coalesce(e.attempt, 1) < t.attempt
        OR e.type IN ('task.cancelled', 'task.rejected') AND e.attempt < t.attempt
        OR e.type = 'task.failed' AND coalesce(e.attempt, 1) < t.attempt AND EXISTS (
            SELECT FROM lifecycle_events n
            WHERE n.entity_type = 'task' AND n.entity_id = e.entity_id
                AND n.tenant_id = e.tenant_id
                AND n.attempt > coalesce(e.attempt, 1) AND n.time <= e.time
        )
    )""")
    # Edges that cannot lie on a cycle are left out first, so that plain chains and stars cost nothing.
    op.execute("""
CREATE VIEW task_dependency_cycles WITH (security_invoker = true) AS
WITH RECURSIVE edges AS (
    SELECT d.tenant_id, d.task_id, d.depends_on_task_id
    FROM task_dependencies d
    WHERE EXISTS (
        SELECT FROM task_dependencies i
        WHERE i.depends_on_task_id = d.task_id AND i.tenant_id = d.tenant_id
    ) AND EXISTS (
        SELECT FROM task_dependencies o
        WHERE o.task_id = d.depends_on_task_id AND o.tenant_id = d.tenant_id
    )
), reach AS (
    SELECT tenant_id, task_id, depends_on_task_id FROM edges
    UNION
    SELECT r.tenant_id, r.task_id, e.depends_on_task_id
    FROM reach r
    JOIN edges e ON e.task_id = r.depends_on_task_id AND e.tenant_id = r.tenant_id
), members AS (
    SELECT r.tenant_id, r.task_id, array_agg(b.task_id ORDER BY b.task_id) AS task_ids
    FROM reach r
    JOIN reach b ON b.task_id = r.depends_on_task_id AND b.depends_on_task_id = r.task_id
        AND b.tenant_id = r.tenant_id
    GROUP BY r.tenant_id, r.task_id
)
SELECT DISTINCT tenant_id, task_ids, cardinality(task_ids) AS size FROM members""")


def downgrade() -> None:
    op.execute("SELECT rebuild_orphans('tasks')")
    for view in ("task_dependency_cycles", "task_anomalies", "active_tasks"):
        op.execute(f"DROP VIEW {view}")
    op.execute("DROP TABLE task_dependencies")
    op.execute("DROP TABLE tasks")
