"""Execution logs, partitioned by month.

Revision: 0003
Revises: 0002
"""

from alembic import op

from worker.store.ddl import compress_sql, first_partitions_sql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("""
CREATE TABLE execution_logs (
    log_id UUID NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    task_id UUID NOT NULL,
    step_number INTEGER NOT NULL,
    agent_type VARCHAR(50) NOT NULL,
    action TEXT NOT NULL,
    status VARCHAR(20) NOT NULL,
    output_summary VARCHAR(500),
    output_full JSONB,
    timestamp TIMESTAMPTZ NOT NULL,
    duration_ms BIGINT,
    event_id UUID NOT NULL,
    source TEXT NOT NULL,
    extensions JSONB,
    content_digest BYTEA NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    recorded_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_execution_logs PRIMARY KEY (log_id, tenant_id),
    CONSTRAINT fk_execution_logs_task_id FOREIGN KEY (task_id, tenant_id)
        REFERENCES tasks (task_id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT ck_execution_logs_step_number CHECK (step_number >= 0),
    CONSTRAINT ck_execution_logs_agent_type CHECK (agent_type ~ '^[a-z0-9][a-z0-9_-]*$'),
    CONSTRAINT ck_execution_logs_status CHECK (status IN ('running', 'completed', 'failed')),
    CONSTRAINT ck_execution_logs_duration_ms CHECK (duration_ms >= 0),
    CONSTRAINT ck_execution_logs_content_digest CHECK (octet_length(content_digest) = 16)
) PARTITION BY RANGE (log_id)""")
    op.execute(compress_sql("execution_logs"))
    op.execute("""
CREATE INDEX ix_execution_logs_task_id_step_number ON execution_logs (task_id, step_number)""")
    op.execute("CREATE INDEX ix_execution_logs_timestamp ON execution_logs (timestamp)")
    op.execute("""
CREATE INDEX ix_execution_logs_failed ON execution_logs (timestamp) WHERE status = 'failed'""")
    op.execute(first_partitions_sql("execution_logs"))


def downgrade() -> None:
    op.execute("DROP TABLE execution_logs")
