"""Workspaces, runs, their steps and graphs, and what they leave behind.

Revision: 0007
Revises: 0006
"""

from alembic import op

from worker.store.ddl import compress_sql, first_partitions_sql

revision = "0007"
down_revision = "0006"

ENTITIES = (
    "sessions",
    "projects",
    "workflow_runs",
    "workflow_steps",
    "dag_nodes",
    "approval_requests",
)
FACTS = (
    "dag_edges",
    "checkpoints",
    "messages",
    "cost_records",
    "branches",
    "workflow_metrics",
    "files",
)


def upgrade() -> None:
    sessions()
    projects()
    workflow_runs()
    workflow_steps()
    dag_nodes()
    dag_edges()
    checkpoints()
    messages()
    cost_records()
    approval_requests()
    branches()
    workflow_metrics()
    files()
    views()
    op.execute("SELECT rebuild_orphans()")


def updated_at_trigger(table: str) -> None:
    op.execute(f"""
CREATE TRIGGER set_updated_at BEFORE UPDATE ON {table}
FOR EACH ROW EXECUTE FUNCTION set_updated_at()""")


def sessions() -> None:
    op.execute("""
CREATE TABLE sessions (
    id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    user_id VARCHAR(255),
    name VARCHAR(255),
    status VARCHAR(20) DEFAULT 'active',
    metadata JSONB,
    resource_limits JSONB,
    last_active_at TIMESTAMPTZ,
    placeholder BOOLEAN NOT NULL DEFAULT false,
    clocks JSONB NOT NULL DEFAULT '{}'::jsonb,
    version INTEGER NOT NULL DEFAULT 0,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_sessions PRIMARY KEY (id, tenant_id),
    CONSTRAINT ck_sessions_version CHECK (version >= 0),
    CONSTRAINT ck_sessions_status CHECK (status IN ('active', 'archived', 'deleted')),
    CONSTRAINT ck_sessions_name_required CHECK (placeholder OR name IS NOT NULL),
    CONSTRAINT ck_sessions_status_required CHECK (placeholder OR status IS NOT NULL)
)""")
    op.execute(compress_sql("sessions"))
    op.execute("CREATE INDEX ix_sessions_user_id ON sessions (user_id)")
    op.execute("CREATE INDEX ix_sessions_placeholder ON sessions (created_at) WHERE placeholder")
    updated_at_trigger("sessions")


def projects() -> None:
    op.execute("""
CREATE TABLE projects (
    id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    session_id UUID,
    name VARCHAR(255),
    description TEXT,
    metadata JSONB,
    placeholder BOOLEAN NOT NULL DEFAULT false,
    clocks JSONB NOT NULL DEFAULT '{}'::jsonb,
    version INTEGER NOT NULL DEFAULT 0,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_projects PRIMARY KEY (id, tenant_id),
    CONSTRAINT fk_projects_session_id FOREIGN KEY (session_id, tenant_id)
        REFERENCES sessions (id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT ck_projects_version CHECK (version >= 0),
    CONSTRAINT ck_projects_session_id_required CHECK (placeholder OR session_id IS NOT NULL),
    CONSTRAINT ck_projects_name_required CHECK (placeholder OR name IS NOT NULL)
)""")
    op.execute(compress_sql("projects"))
    op.execute("CREATE INDEX ix_projects_placeholder ON projects (created_at) WHERE placeholder")
    op.execute("CREATE INDEX ix_projects_session_id ON projects (session_id)")
    updated_at_trigger("projects")


def workflow_runs() -> None:
    op.execute("""
CREATE TABLE workflow_runs (
    id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    session_id UUID,
    project_id UUID,
    mode VARCHAR(20),
    agent VARCHAR(100),
    model VARCHAR(100),
    status VARCHAR(20) DEFAULT 'draft',
    started_at TIMESTAMPTZ,
    completed_at TIMESTAMPTZ,
    last_heartbeat_at TIMESTAMPTZ,
    checkpoint_frequency_minutes INTEGER DEFAULT 10,
    task_description TEXT,
    metadata JSONB,
    placeholder BOOLEAN NOT NULL DEFAULT false,
    clocks JSONB NOT NULL DEFAULT '{}'::jsonb,
    version INTEGER NOT NULL DEFAULT 0,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_workflow_runs PRIMARY KEY (id, tenant_id),
    CONSTRAINT fk_workflow_runs_session_id FOREIGN KEY (session_id, tenant_id)
        REFERENCES sessions (id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT fk_workflow_runs_project_id FOREIGN KEY (project_id, tenant_id)
        REFERENCES projects (id, tenant_id) ON DELETE SET NULL (project_id),
    CONSTRAINT ck_workflow_runs_version CHECK (version >= 0),
    CONSTRAINT ck_workflow_runs_mode CHECK (mode IN (
        'one_shot', 'planning_control', 'deep_research')),
    CONSTRAINT ck_workflow_runs_status CHECK (status IN (
        'draft', 'planning', 'executing', 'paused', 'waiting_approval', 'completed', 'failed')),
    CONSTRAINT ck_workflow_runs_checkpoint_frequency_minutes
        CHECK (checkpoint_frequency_minutes >= 1),
    CONSTRAINT ck_workflow_runs_session_id_required CHECK (placeholder OR session_id IS NOT NULL),
    CONSTRAINT ck_workflow_runs_mode_required CHECK (placeholder OR mode IS NOT NULL),
    CONSTRAINT ck_workflow_runs_status_required CHECK (placeholder OR status IS NOT NULL),
    CONSTRAINT ck_workflow_runs_checkpoint_frequency_minutes_required
        CHECK (placeholder OR checkpoint_frequency_minutes IS NOT NULL)
)""")
    op.execute(compress_sql("workflow_runs"))
    op.execute("CREATE INDEX ix_workflow_runs_session_id ON workflow_runs (session_id)")
    op.execute("""
CREATE INDEX ix_workflow_runs_placeholder
ON workflow_runs (created_at)
WHERE placeholder""")
    op.execute("CREATE INDEX ix_workflow_runs_project_id ON workflow_runs (project_id)")
    op.execute("CREATE INDEX ix_workflow_runs_status ON workflow_runs (status)")
    updated_at_trigger("workflow_runs")


def workflow_steps() -> None:
    op.execute("""
CREATE TABLE workflow_steps (
    id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    run_id UUID,
    session_id UUID,
    step_number INTEGER,
    agent VARCHAR(100),
    status VARCHAR(20) DEFAULT 'pending',
    started_at TIMESTAMPTZ,
    completed_at TIMESTAMPTZ,
    progress_percentage INTEGER DEFAULT 0,
    inputs JSONB,
    outputs JSONB,
    error_message TEXT,
    metadata JSONB,
    placeholder BOOLEAN NOT NULL DEFAULT false,
    clocks JSONB NOT NULL DEFAULT '{}'::jsonb,
    version INTEGER NOT NULL DEFAULT 0,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_workflow_steps PRIMARY KEY (id, tenant_id),
    CONSTRAINT fk_workflow_steps_run_id FOREIGN KEY (run_id, tenant_id)
        REFERENCES workflow_runs (id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT ck_workflow_steps_version CHECK (version >= 0),
    CONSTRAINT ck_workflow_steps_status CHECK (status IN (
        'pending', 'running', 'paused', 'waiting_approval', 'completed', 'failed', 'skipped')),
    CONSTRAINT ck_workflow_steps_step_number CHECK (step_number >= 0),
    CONSTRAINT ck_workflow_steps_progress_percentage CHECK (progress_percentage BETWEEN 0 AND 100),
    CONSTRAINT ck_workflow_steps_run_id_required CHECK (placeholder OR run_id IS NOT NULL),
    CONSTRAINT ck_workflow_steps_session_id_required CHECK (placeholder OR session_id IS NOT NULL),
    CONSTRAINT ck_workflow_steps_step_number_required
        CHECK (placeholder OR step_number IS NOT NULL),
    CONSTRAINT ck_workflow_steps_status_required CHECK (placeholder OR status IS NOT NULL),
    CONSTRAINT ck_workflow_steps_progress_percentage_required
        CHECK (placeholder OR progress_percentage IS NOT NULL)
)""")
    op.execute(compress_sql("workflow_steps"))
    op.execute("""
CREATE INDEX ix_workflow_steps_run_id_step_number
ON workflow_steps (run_id, step_number)""")
    op.execute("CREATE INDEX ix_workflow_steps_session_id ON workflow_steps (session_id)")
    op.execute("""
CREATE INDEX ix_workflow_steps_placeholder
ON workflow_steps (created_at)
WHERE placeholder""")
    updated_at_trigger("workflow_steps")


def dag_nodes() -> None:
    op.execute("""
CREATE TABLE dag_nodes (
    id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    run_id UUID,
    session_id UUID,
    node_type VARCHAR(20),
    agent VARCHAR(100),
    status VARCHAR(20) DEFAULT 'pending',
    order_index INTEGER,
    metadata JSONB,
    placeholder BOOLEAN NOT NULL DEFAULT false,
    clocks JSONB NOT NULL DEFAULT '{}'::jsonb,
    version INTEGER NOT NULL DEFAULT 0,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_dag_nodes PRIMARY KEY (id, tenant_id),
    CONSTRAINT fk_dag_nodes_run_id FOREIGN KEY (run_id, tenant_id)
        REFERENCES workflow_runs (id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT ck_dag_nodes_version CHECK (version >= 0),
    CONSTRAINT ck_dag_nodes_node_type CHECK (node_type IN (
        'planning', 'control', 'agent', 'approval', 'parallel_group', 'terminator')),
    CONSTRAINT ck_dag_nodes_status CHECK (status IN (
        'pending', 'running', 'paused', 'waiting_approval', 'completed', 'failed', 'skipped')),
    CONSTRAINT ck_dag_nodes_order_index CHECK (order_index >= 0),
    CONSTRAINT ck_dag_nodes_run_id_required CHECK (placeholder OR run_id IS NOT NULL),
    CONSTRAINT ck_dag_nodes_session_id_required CHECK (placeholder OR session_id IS NOT NULL),
    CONSTRAINT ck_dag_nodes_node_type_required CHECK (placeholder OR node_type IS NOT NULL),
    CONSTRAINT ck_dag_nodes_status_required CHECK (placeholder OR status IS NOT NULL)
)""")
    op.execute(compress_sql("dag_nodes"))
    op.execute("CREATE INDEX ix_dag_nodes_run_id_order_index ON dag_nodes (run_id, order_index)")
    op.execute("CREATE INDEX ix_dag_nodes_session_id ON dag_nodes (session_id)")
    op.execute("CREATE INDEX ix_dag_nodes_placeholder ON dag_nodes (created_at) WHERE placeholder")
    updated_at_trigger("dag_nodes")


def dag_edges() -> None:
    op.execute("""
CREATE TABLE dag_edges (
    from_node_id UUID NOT NULL,
    to_node_id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    run_id UUID NOT NULL,
    session_id UUID NOT NULL,
    dependency_type VARCHAR(20) NOT NULL DEFAULT 'sequential',
    condition TEXT,
    event_id UUID NOT NULL,
    source TEXT NOT NULL,
    extensions JSONB,
    content_digest BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    recorded_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_dag_edges PRIMARY KEY (from_node_id, to_node_id, tenant_id),
    CONSTRAINT fk_dag_edges_from_node_id FOREIGN KEY (from_node_id, tenant_id)
        REFERENCES dag_nodes (id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT fk_dag_edges_to_node_id FOREIGN KEY (to_node_id, tenant_id)
        REFERENCES dag_nodes (id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT fk_dag_edges_run_id FOREIGN KEY (run_id, tenant_id)
        REFERENCES workflow_runs (id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT ck_dag_edges_content_digest CHECK (octet_length(content_digest) = 16),
    CONSTRAINT ck_dag_edges_dependency_type CHECK (dependency_type IN (
        'sequential', 'parallel', 'conditional')),
    CONSTRAINT ck_dag_edges_not_itself CHECK (from_node_id <> to_node_id)
)""")
    op.execute(compress_sql("dag_edges"))
    op.execute("CREATE INDEX ix_dag_edges_to_node_id ON dag_edges (to_node_id)")
    op.execute("CREATE INDEX ix_dag_edges_run_id ON dag_edges (run_id)")
    op.execute("CREATE INDEX ix_dag_edges_session_id ON dag_edges (session_id)")


def checkpoints() -> None:
    op.execute("""
CREATE TABLE checkpoints (
    id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    run_id UUID NOT NULL,
    session_id UUID NOT NULL,
    step_id UUID,
    checkpoint_type VARCHAR(20) NOT NULL,
    context_snapshot JSONB,
    context_snapshot_ref JSONB,
    archive_path VARCHAR(500),
    metadata JSONB,
    event_id UUID NOT NULL,
    source TEXT NOT NULL,
    extensions JSONB,
    content_digest BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    recorded_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_checkpoints PRIMARY KEY (id, tenant_id),
    CONSTRAINT fk_checkpoints_run_id FOREIGN KEY (run_id, tenant_id)
        REFERENCES workflow_runs (id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT fk_checkpoints_step_id FOREIGN KEY (step_id, tenant_id)
        REFERENCES workflow_steps (id, tenant_id) ON DELETE SET NULL (step_id),
    CONSTRAINT ck_checkpoints_content_digest CHECK (octet_length(content_digest) = 16),
    CONSTRAINT ck_checkpoints_checkpoint_type CHECK (checkpoint_type IN (
        'step_complete', 'timed', 'manual', 'error', 'emergency')),
    CONSTRAINT ck_checkpoints_context_snapshot
        CHECK (num_nonnulls(context_snapshot, context_snapshot_ref) >= 1)
)""")
    op.execute(compress_sql("checkpoints"))
    op.execute("CREATE INDEX ix_checkpoints_step_id ON checkpoints (step_id)")
    op.execute("CREATE INDEX ix_checkpoints_run_id_created_at ON checkpoints (run_id, created_at)")
    op.execute("""
CREATE INDEX ix_checkpoints_not_archived
ON checkpoints (id)
WHERE archive_path IS NULL AND context_snapshot IS NOT NULL""")
    op.execute("CREATE INDEX ix_checkpoints_session_id ON checkpoints (session_id)")


def messages() -> None:
    op.execute("""
CREATE TABLE messages (
    id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    run_id UUID NOT NULL,
    session_id UUID NOT NULL,
    step_id UUID,
    sender VARCHAR(100) NOT NULL,
    recipient VARCHAR(100) NOT NULL,
    content TEXT NOT NULL,
    content_ref JSONB,
    timestamp TIMESTAMPTZ NOT NULL,
    tokens INTEGER,
    metadata JSONB,
    event_id UUID NOT NULL,
    source TEXT NOT NULL,
    extensions JSONB,
    content_digest BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    recorded_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_messages PRIMARY KEY (id, tenant_id),
    CONSTRAINT fk_messages_run_id FOREIGN KEY (run_id, tenant_id)
        REFERENCES workflow_runs (id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT fk_messages_step_id FOREIGN KEY (step_id, tenant_id)
        REFERENCES workflow_steps (id, tenant_id) ON DELETE SET NULL (step_id),
    CONSTRAINT ck_messages_content_digest CHECK (octet_length(content_digest) = 16),
    CONSTRAINT ck_messages_tokens CHECK (tokens >= 0)
)""")
    op.execute(compress_sql("messages"))
    op.execute("CREATE INDEX ix_messages_run_id_timestamp ON messages (run_id, timestamp)")
    op.execute("CREATE INDEX ix_messages_session_id ON messages (session_id)")
    op.execute("CREATE INDEX ix_messages_step_id ON messages (step_id)")


def cost_records() -> None:
    op.execute("""
CREATE TABLE cost_records (
    id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    run_id UUID NOT NULL,
    session_id UUID NOT NULL,
    step_id UUID,
    model VARCHAR(100) NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    total_tokens BIGINT NOT NULL,
    cost_usd NUMERIC(10, 6) NOT NULL,
    timestamp TIMESTAMPTZ NOT NULL,
    event_id UUID NOT NULL,
    source TEXT NOT NULL,
    extensions JSONB,
    content_digest BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    recorded_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_cost_records PRIMARY KEY (id, tenant_id),
    CONSTRAINT fk_cost_records_run_id FOREIGN KEY (run_id, tenant_id)
        REFERENCES workflow_runs (id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT fk_cost_records_step_id FOREIGN KEY (step_id, tenant_id)
        REFERENCES workflow_steps (id, tenant_id) ON DELETE SET NULL (step_id),
    CONSTRAINT ck_cost_records_content_digest CHECK (octet_length(content_digest) = 16),
    CONSTRAINT ck_cost_records_prompt_tokens CHECK (prompt_tokens >= 0),
    CONSTRAINT ck_cost_records_completion_tokens CHECK (completion_tokens >= 0),
    CONSTRAINT ck_cost_records_total_tokens CHECK (total_tokens >= 0),
    CONSTRAINT ck_cost_records_cost_usd CHECK (cost_usd >= 0)
) PARTITION BY RANGE (id)""")
    op.execute(compress_sql("cost_records"))
    op.execute("CREATE INDEX ix_cost_records_model_timestamp ON cost_records (model, timestamp)")
    op.execute("""
CREATE INDEX ix_cost_records_session_id_timestamp
ON cost_records (session_id, timestamp)""")
    op.execute("CREATE INDEX ix_cost_records_run_id ON cost_records (run_id)")
    op.execute("CREATE INDEX ix_cost_records_step_id ON cost_records (step_id)")
    op.execute(first_partitions_sql("cost_records"))


def approval_requests() -> None:
    op.execute("""
CREATE TABLE approval_requests (
    id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    run_id UUID,
    session_id UUID,
    step_id UUID,
    status VARCHAR(20) DEFAULT 'pending',
    requested_at TIMESTAMPTZ,
    resolved_at TIMESTAMPTZ,
    context_snapshot JSONB,
    context_snapshot_ref JSONB,
    user_feedback TEXT,
    resolution VARCHAR(50),
    placeholder BOOLEAN NOT NULL DEFAULT false,
    clocks JSONB NOT NULL DEFAULT '{}'::jsonb,
    version INTEGER NOT NULL DEFAULT 0,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_approval_requests PRIMARY KEY (id, tenant_id),
    CONSTRAINT fk_approval_requests_run_id FOREIGN KEY (run_id, tenant_id)
        REFERENCES workflow_runs (id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT fk_approval_requests_step_id FOREIGN KEY (step_id, tenant_id)
        REFERENCES workflow_steps (id, tenant_id) ON DELETE SET NULL (step_id),
    CONSTRAINT ck_approval_requests_version CHECK (version >= 0),
    CONSTRAINT ck_approval_requests_status CHECK (status IN (
        'pending', 'approved', 'rejected', 'modified')),
    CONSTRAINT ck_approval_requests_run_id_required CHECK (placeholder OR run_id IS NOT NULL),
    CONSTRAINT ck_approval_requests_session_id_required
        CHECK (placeholder OR session_id IS NOT NULL),
    CONSTRAINT ck_approval_requests_status_required CHECK (placeholder OR status IS NOT NULL),
    CONSTRAINT ck_approval_requests_requested_at_required
        CHECK (placeholder OR requested_at IS NOT NULL)
)""")
    op.execute(compress_sql("approval_requests"))
    op.execute("CREATE INDEX ix_approval_requests_step_id ON approval_requests (step_id)")
    op.execute("""
CREATE INDEX ix_approval_requests_placeholder
ON approval_requests (created_at)
WHERE placeholder""")
    op.execute("CREATE INDEX ix_approval_requests_session_id ON approval_requests (session_id)")
    op.execute("""
CREATE INDEX ix_approval_requests_pending
ON approval_requests (requested_at)
WHERE status = 'pending'""")
    op.execute("CREATE INDEX ix_approval_requests_run_id ON approval_requests (run_id)")
    updated_at_trigger("approval_requests")


def branches() -> None:
    op.execute("""
CREATE TABLE branches (
    id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    parent_run_id UUID NOT NULL,
    parent_step_id UUID,
    child_run_id UUID NOT NULL,
    session_id UUID NOT NULL,
    branch_name VARCHAR(255) NOT NULL,
    hypothesis TEXT,
    metadata JSONB,
    event_id UUID NOT NULL,
    source TEXT NOT NULL,
    extensions JSONB,
    content_digest BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    recorded_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_branches PRIMARY KEY (id, tenant_id),
    CONSTRAINT fk_branches_parent_run_id FOREIGN KEY (parent_run_id, tenant_id)
        REFERENCES workflow_runs (id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT fk_branches_child_run_id FOREIGN KEY (child_run_id, tenant_id)
        REFERENCES workflow_runs (id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT fk_branches_parent_step_id FOREIGN KEY (parent_step_id, tenant_id)
        REFERENCES workflow_steps (id, tenant_id) ON DELETE SET NULL (parent_step_id),
    CONSTRAINT ck_branches_content_digest CHECK (octet_length(content_digest) = 16),
    CONSTRAINT ck_branches_not_itself CHECK (parent_run_id <> child_run_id)
)""")
    op.execute(compress_sql("branches"))
    op.execute("CREATE INDEX ix_branches_parent_run_id ON branches (parent_run_id)")
    op.execute("CREATE INDEX ix_branches_session_id ON branches (session_id)")
    op.execute("CREATE INDEX ix_branches_parent_step_id ON branches (parent_step_id)")
    op.execute("CREATE INDEX ix_branches_child_run_id ON branches (child_run_id)")


def workflow_metrics() -> None:
    op.execute("""
CREATE TABLE workflow_metrics (
    id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    run_id UUID NOT NULL,
    session_id UUID NOT NULL,
    step_id UUID,
    timestamp TIMESTAMPTZ NOT NULL,
    metric_name VARCHAR(100) NOT NULL,
    metric_value NUMERIC NOT NULL,
    metadata JSONB,
    event_id UUID NOT NULL,
    source TEXT NOT NULL,
    extensions JSONB,
    content_digest BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    recorded_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_workflow_metrics PRIMARY KEY (id, tenant_id),
    CONSTRAINT fk_workflow_metrics_run_id FOREIGN KEY (run_id, tenant_id)
        REFERENCES workflow_runs (id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT fk_workflow_metrics_step_id FOREIGN KEY (step_id, tenant_id)
        REFERENCES workflow_steps (id, tenant_id) ON DELETE SET NULL (step_id),
    CONSTRAINT ck_workflow_metrics_content_digest CHECK (octet_length(content_digest) = 16)
) PARTITION BY RANGE (id)""")
    op.execute(compress_sql("workflow_metrics"))
    op.execute("""
CREATE INDEX ix_workflow_metrics_run_id_metric_name_timestamp
ON workflow_metrics (run_id, metric_name, timestamp)""")
    op.execute("CREATE INDEX ix_workflow_metrics_step_id ON workflow_metrics (step_id)")
    op.execute("CREATE INDEX ix_workflow_metrics_session_id ON workflow_metrics (session_id)")
    op.execute(first_partitions_sql("workflow_metrics"))


def files() -> None:
    op.execute("""
CREATE TABLE files (
    id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    run_id UUID NOT NULL,
    session_id UUID NOT NULL,
    step_id UUID,
    file_path VARCHAR(1000) NOT NULL,
    file_type VARCHAR(20) NOT NULL,
    size_bytes BIGINT,
    metadata JSONB,
    event_id UUID NOT NULL,
    source TEXT NOT NULL,
    extensions JSONB,
    content_digest BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    recorded_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_files PRIMARY KEY (id, tenant_id),
    CONSTRAINT fk_files_run_id FOREIGN KEY (run_id, tenant_id)
        REFERENCES workflow_runs (id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT fk_files_step_id FOREIGN KEY (step_id, tenant_id)
        REFERENCES workflow_steps (id, tenant_id) ON DELETE SET NULL (step_id),
    CONSTRAINT ck_files_content_digest CHECK (octet_length(content_digest) = 16),
    CONSTRAINT ck_files_file_type CHECK (file_type IN ('code', 'data', 'plot', 'log', 'other')),
    CONSTRAINT ck_files_size_bytes CHECK (size_bytes >= 0)
)""")
    op.execute(compress_sql("files"))
    op.execute("CREATE INDEX ix_files_step_id ON files (step_id)")
    op.execute("CREATE INDEX ix_files_run_id ON files (run_id)")
    op.execute("CREATE INDEX ix_files_session_id ON files (session_id)")


def views() -> None:
    # As task_dependency_cycles: a definition cannot hold a cycle, edges that came by themselves can.
    op.execute("""
CREATE VIEW dag_cycles WITH (security_invoker = true) AS
WITH RECURSIVE edges AS (
    SELECT d.tenant_id, d.run_id, d.from_node_id, d.to_node_id
    FROM dag_edges d
    WHERE EXISTS (
        SELECT FROM dag_edges i
        WHERE i.to_node_id = d.from_node_id AND i.tenant_id = d.tenant_id
    ) AND EXISTS (
        SELECT FROM dag_edges o
        WHERE o.from_node_id = d.to_node_id AND o.tenant_id = d.tenant_id
    )
), reach AS (
    SELECT tenant_id, run_id, from_node_id, to_node_id FROM edges
    UNION
    SELECT r.tenant_id, r.run_id, r.from_node_id, e.to_node_id
    FROM reach r
    JOIN edges e ON e.from_node_id = r.to_node_id AND e.tenant_id = r.tenant_id
), members AS (
    SELECT r.tenant_id, r.from_node_id, min(r.run_id::text)::uuid AS run_id,
        array_agg(DISTINCT b.from_node_id ORDER BY b.from_node_id) AS node_ids
    FROM reach r
    JOIN reach b ON b.from_node_id = r.to_node_id AND b.to_node_id = r.from_node_id
        AND b.tenant_id = r.tenant_id
    GROUP BY r.tenant_id, r.from_node_id
)
SELECT DISTINCT tenant_id, run_id, node_ids, cardinality(node_ids) AS size FROM members""")


def downgrade() -> None:
    op.execute("SELECT rebuild_orphans(" + ", ".join(f"'{table}'" for table in ENTITIES) + ")")
    op.execute("DROP VIEW dag_cycles")
    op.execute(f"DROP TABLE {', '.join((*FACTS, *reversed(ENTITIES)))}")
