"""The loss ledger: which of a source's numbered events were seen, and which numbers a dead letter holds.

Revision: 0005
Revises: 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    # The key begins with the epoch, which says enough to find a row; a source can be too long for an index.
    op.execute("""
CREATE TABLE loss_ledger (
    epoch UUID NOT NULL,
    id UUID NOT NULL DEFAULT gen_random_uuid(),
    tenant_id TEXT NOT NULL DEFAULT 'default',
    source TEXT NOT NULL,
    persisted INT8MULTIRANGE NOT NULL DEFAULT '{}'::int8multirange,
    doubled INT8MULTIRANGE NOT NULL DEFAULT '{}'::int8multirange,
    duplicate INT8MULTIRANGE NOT NULL DEFAULT '{}'::int8multirange,
    rejected INT8MULTIRANGE NOT NULL DEFAULT '{}'::int8multirange,
    recorded_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_loss_ledger PRIMARY KEY (epoch, id)
)""")
    op.execute("ALTER TABLE dead_letters ADD COLUMN sequences JSONB")


def downgrade() -> None:
    op.execute("ALTER TABLE dead_letters DROP COLUMN sequences")
    op.execute("DROP TABLE loss_ledger")
