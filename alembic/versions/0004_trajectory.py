"""Training jobs, trajectories (partitioned by month), policy checkpoints.

Revision: 0004
Revises: 0003
"""

from alembic import op

from worker.store.ddl import compress_sql, first_partitions_sql

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    training_jobs()
    trajectories()
    policy_checkpoints()
    op.execute("SELECT rebuild_orphans()")


def training_jobs() -> None:
    op.execute("""
CREATE TABLE training_jobs (
    job_id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    agent_id VARCHAR(255),
    status VARCHAR(20) DEFAULT 'queued',
    config JSONB,
    training_data JSONB,
    current_iteration INTEGER DEFAULT 0,
    total_iterations INTEGER,
    metrics JSONB,
    cost_usd NUMERIC(14, 6) DEFAULT 0,
    budget_usd NUMERIC(14, 6),
    best_checkpoint_id UUID,
    started_at TIMESTAMPTZ,
    completed_at TIMESTAMPTZ,
    error_message VARCHAR(1000),
    placeholder BOOLEAN NOT NULL DEFAULT false,
    clocks JSONB NOT NULL DEFAULT '{}'::jsonb,
    version INTEGER NOT NULL DEFAULT 0,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_training_jobs PRIMARY KEY (job_id, tenant_id),
    CONSTRAINT ck_training_jobs_status CHECK (
        status IN ('queued', 'running', 'completed', 'failed', 'cancelled')),
    CONSTRAINT ck_training_jobs_current_iteration CHECK (current_iteration >= 0),
    CONSTRAINT ck_training_jobs_total_iterations CHECK (total_iterations >= 1),
    CONSTRAINT ck_training_jobs_cost_usd CHECK (cost_usd >= 0),
    CONSTRAINT ck_training_jobs_budget_usd CHECK (budget_usd >= 0),
    CONSTRAINT ck_training_jobs_version CHECK (version >= 0),
    CONSTRAINT ck_training_jobs_agent_id_required CHECK (placeholder OR agent_id IS NOT NULL),
    CONSTRAINT ck_training_jobs_status_required CHECK (placeholder OR status IS NOT NULL),
    CONSTRAINT ck_training_jobs_total_iterations_required
        CHECK (placeholder OR total_iterations IS NOT NULL)
)""")
    op.execute(compress_sql("training_jobs"))
    op.execute(
        "CREATE INDEX ix_training_jobs_placeholder ON training_jobs (created_at) WHERE placeholder"
    )
    op.execute("""
CREATE TRIGGER set_updated_at BEFORE UPDATE ON training_jobs
FOR EACH ROW EXECUTE FUNCTION set_updated_at()""")


def trajectories() -> None:
    op.execute("""
CREATE TABLE trajectories (
    trajectory_id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    job_id UUID NOT NULL,
    agent_id VARCHAR(255) NOT NULL,
    query TEXT NOT NULL,
    steps JSONB NOT NULL DEFAULT '[]'::jsonb,
    reward DOUBLE PRECISION NOT NULL,
    normalized_reward DOUBLE PRECISION,
    advantage DOUBLE PRECISION,
    execution_time_ms BIGINT,
    success BOOLEAN,
    event_id UUID NOT NULL,
    source TEXT NOT NULL,
    extensions JSONB,
    content_digest BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    recorded_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_trajectories PRIMARY KEY (trajectory_id, tenant_id),
    CONSTRAINT fk_trajectories_job_id FOREIGN KEY (job_id, tenant_id)
        REFERENCES training_jobs (job_id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT ck_trajectories_steps CHECK (
        CASE WHEN jsonb_typeof(steps) = 'array' THEN jsonb_array_length(steps) <= 100
        ELSE false END),
    CONSTRAINT ck_trajectories_execution_time_ms CHECK (execution_time_ms >= 0),
    CONSTRAINT ck_trajectories_content_digest CHECK (octet_length(content_digest) = 16)
) PARTITION BY RANGE (trajectory_id)""")
    op.execute(compress_sql("trajectories"))
    op.execute("CREATE INDEX ix_trajectories_job_id ON trajectories (job_id)")
    op.execute("CREATE INDEX ix_trajectories_agent_id ON trajectories (agent_id)")
    op.execute("CREATE INDEX ix_trajectories_created_at ON trajectories (created_at)")
    op.execute("CREATE INDEX ix_trajectories_success ON trajectories (success)")
    op.execute(
        "CREATE INDEX ix_trajectories_steps ON trajectories USING gin (steps jsonb_path_ops)"
    )
    op.execute(first_partitions_sql("trajectories"))


def policy_checkpoints() -> None:
    op.execute("""
CREATE TABLE policy_checkpoints (
    checkpoint_id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    agent_id VARCHAR(255) NOT NULL,
    job_id UUID NOT NULL,
    iteration INTEGER NOT NULL,
    policy_data JSONB,
    policy_s3_path VARCHAR(500),
    validation_score DOUBLE PRECISION,
    metrics JSONB,
    event_id UUID NOT NULL,
    source TEXT NOT NULL,
    extensions JSONB,
    content_digest BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    recorded_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_policy_checkpoints PRIMARY KEY (checkpoint_id, tenant_id),
    CONSTRAINT fk_policy_checkpoints_job_id FOREIGN KEY (job_id, tenant_id)
        REFERENCES training_jobs (job_id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT ck_policy_checkpoints_iteration CHECK (iteration >= 0),
    CONSTRAINT ck_policy_checkpoints_policy CHECK (num_nonnulls(policy_data, policy_s3_path) >= 1),
    CONSTRAINT ck_policy_checkpoints_content_digest CHECK (octet_length(content_digest) = 16)
)""")
    op.execute(compress_sql("policy_checkpoints"))
    for column in ("agent_id", "job_id", "created_at", "validation_score"):
        op.execute(f"CREATE INDEX ix_policy_checkpoints_{column} ON policy_checkpoints ({column})")


def downgrade() -> None:
    op.execute("SELECT rebuild_orphans('training_jobs')")
    op.execute("DROP TABLE policy_checkpoints")
    op.execute("DROP TABLE trajectories")
    op.execute("DROP TABLE training_jobs")
