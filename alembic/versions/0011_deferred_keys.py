"""Foreign keys that are checked at the commit, so that rows may be written before what they name.

Revision: 0011
Revises: 0010
"""

from alembic import op

revision = "0011"
down_revision = "0010"


def _alter_sql(checked: str) -> str:
    """Every foreign key that ends in the tenant, as all of the model do; partitions follow their table."""
    return f"""
DO $$
DECLARE
    key record;
BEGIN
    FOR key IN
        SELECT conrelid::regclass AS place, conname
        FROM pg_constraint c
        JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[2]
        WHERE contype = 'f' AND conparentid = 0 AND cardinality(conkey) = 2
            AND attname = 'tenant_id' AND connamespace = current_schema()::regnamespace
        ORDER BY conrelid::regclass::text, conname
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER CONSTRAINT %I {checked}', key.place, key.conname);
    END LOOP;
END
$$"""  # noqa: S608 (only the words of this file)


def upgrade() -> None:
    op.execute(_alter_sql("DEFERRABLE INITIALLY DEFERRED"))


def downgrade() -> None:
    op.execute(_alter_sql("NOT DEFERRABLE"))
