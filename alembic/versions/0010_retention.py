"""Retention: what becomes of trust metrics when their measurements are dropped.

Revision: 0010
Revises: 0009
"""

from alembic import op

revision = "0010"
down_revision = "0009"

# The view of 0006 up to the figures of trust metrics.
VIEW = """
CREATE OR REPLACE VIEW session_trust WITH (security_invoker = true) AS
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
"""
RAW = """CROSS JOIN LATERAL (
    SELECT (array_agg(metric_value ORDER BY created_at DESC, metric_id DESC)
            FILTER (WHERE metric_type = 'accuracy'))[1] AS accuracy,
        (array_agg(metric_value ORDER BY created_at DESC, metric_id DESC)
            FILTER (WHERE metric_type = 'autonomy'))[1] AS autonomy,
        (array_agg(metric_value ORDER BY created_at DESC, metric_id DESC)
            FILTER (WHERE metric_type = 'complexity'))[1] AS complexity
    FROM trust_metrics
    WHERE session_id = s.session_id AND tenant_id = s.tenant_id
) m"""
# The latest measurement, whether it is still there or in an aggregate only.
RAW_AND_DAILY = """CROSS JOIN LATERAL (
    SELECT (array_agg(metric_value ORDER BY measured_at DESC, metric_id DESC NULLS LAST)
            FILTER (WHERE metric_type = 'accuracy'))[1] AS accuracy,
        (array_agg(metric_value ORDER BY measured_at DESC, metric_id DESC NULLS LAST)
            FILTER (WHERE metric_type = 'autonomy'))[1] AS autonomy,
        (array_agg(metric_value ORDER BY measured_at DESC, metric_id DESC NULLS LAST)
            FILTER (WHERE metric_type = 'complexity'))[1] AS complexity
    FROM (
        SELECT metric_type, metric_value, created_at AS measured_at, metric_id
        FROM trust_metrics
        WHERE session_id = s.session_id AND tenant_id = s.tenant_id
        UNION ALL
        SELECT metric_type, last_value, last_measured_at, NULL
        FROM trust_metrics_daily
        WHERE session_id = s.session_id AND tenant_id = s.tenant_id
    ) measured
) m"""


def upgrade() -> None:
    op.execute("""
CREATE TABLE trust_metrics_daily (
    session_id UUID NOT NULL,
    metric_type VARCHAR(20) NOT NULL,
    day DATE NOT NULL,
    tenant_id TEXT NOT NULL DEFAULT 'default',
    measurements BIGINT NOT NULL,
    minimum NUMERIC(5, 2) NOT NULL,
    maximum NUMERIC(5, 2) NOT NULL,
    total NUMERIC NOT NULL,
    last_value NUMERIC(5, 2) NOT NULL,
    last_measured_at TIMESTAMPTZ NOT NULL,
    CONSTRAINT pk_trust_metrics_daily PRIMARY KEY (session_id, metric_type, day, tenant_id),
    CONSTRAINT fk_trust_metrics_daily_session_id FOREIGN KEY (session_id, tenant_id)
        REFERENCES agent_sessions (session_id, tenant_id) ON DELETE CASCADE,
    CONSTRAINT ck_trust_metrics_daily_metric_type CHECK (
        metric_type IN ('accuracy', 'autonomy', 'complexity')),
    CONSTRAINT ck_trust_metrics_daily_measurements CHECK (measurements >= 1),
    CONSTRAINT ck_trust_metrics_daily_maximum CHECK (minimum <= maximum)
)""")
    op.execute(VIEW + RAW_AND_DAILY)
    op.execute("SELECT secure_tables()")


def downgrade() -> None:
    op.execute(VIEW + RAW)
    op.execute("DROP TABLE trust_metrics_daily")
