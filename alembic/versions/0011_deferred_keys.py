"""Foreign keys to entities are checked at the commit, so that rows may be written before what they name.

Revision: 0011
Revises: 0010
"""

from alembic import op

revision = "0011"
down_revision = "0010"


def _alter_sql(checked: str, *, deferred: bool) -> str:
    """Every foreign key to an entity that does something ON DELETE, tables of one's own included; partitions follow.

    What does nothing, NO ACTION, would wait with its refusal of a DELETE, too. Entities go first, as writers of the
    version before lock them.
    """
    return f"""
DO $$
DECLARE
    key record;
BEGIN
    FOR key IN
        SELECT conrelid::regclass AS place, conname
        FROM pg_constraint
        JOIN pg_class child ON child.oid = conrelid
        JOIN pg_attribute entity ON entity.attrelid = confrelid AND entity.attname = 'placeholder'
        WHERE contype = 'f' AND conparentid = 0 AND confdeltype <> 'a' AND condeferred = {deferred}
            AND connamespace = current_schema()::regnamespace
            AND pg_has_role(child.relowner, 'USAGE')
        ORDER BY NOT EXISTS (
            SELECT FROM pg_attribute own WHERE own.attrelid = conrelid AND own.attname = 'placeholder'
        ), conrelid::regclass::text, conname
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER CONSTRAINT %I {checked}', key.place, key.conname);
    END LOOP;
END
$$"""  # noqa: S608 (only the words of this file)


def upgrade() -> None:
    op.execute(_alter_sql("DEFERRABLE INITIALLY DEFERRED", deferred=False))


def downgrade() -> None:
    op.execute(_alter_sql("NOT DEFERRABLE", deferred=True))
