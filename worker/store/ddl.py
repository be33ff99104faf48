"""Statements that migrations share.

Migrations that ran long ago were made with these, so they are frozen: a change of mind is a new function.
Each is one statement that needs no connection while it is made, so that offline SQL (`--sql`) is complete.
"""


def compress_sql(table: str) -> str:
    """Large columns of a new table compressed with lz4 where the server was built with it, else as the server does."""
    return f"""
DO $$
DECLARE
    changes text;
BEGIN
    IF (SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression') THEN
        SELECT string_agg(format('ALTER COLUMN %I SET COMPRESSION lz4', attname), ', ')
        INTO changes
        FROM pg_attribute
        WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped
            AND atttypid IN ('jsonb'::regtype, 'text'::regtype, 'bytea'::regtype);
        EXECUTE 'ALTER TABLE {table} ' || changes;
    END IF;
END
$$"""  # noqa: S608 (table is a literal of a migration)


def first_partitions_sql(table: str, months_ahead: int = 12) -> str:
    """Partitions of a new table for the month in which this runs and those after it, and the default one.

    Bounds and names are those of `worker.store.partitions`, worked out by the server: offline SQL may run months later.
    """
    return f"""
DO $$
DECLARE
    this_month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    first timestamp;
    bounds uuid[];
BEGIN
    FOR ahead IN 0..{months_ahead} LOOP
        first := this_month + ahead * interval '1 month';
        SELECT array_agg(
            (lpad(to_hex((extract(epoch FROM edge) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
            ORDER BY edge)
        INTO bounds
        FROM unnest(ARRAY[first, first + interval '1 month']) AS edge;
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF {table} FOR VALUES FROM (%L) TO (%L)',
            '{table}_y' || to_char(first, 'YYYY') || 'm' || to_char(first, 'MM'), bounds[1], bounds[2]);
    END LOOP;
    CREATE TABLE {table}_default PARTITION OF {table} DEFAULT;
END
$$"""  # noqa: S608 (table is a literal of a migration)
