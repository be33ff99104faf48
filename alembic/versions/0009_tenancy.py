"""Tenancy: row-level security on every table of tenants, the roles that it knows, and searches that keep their index.

Revision: 0009
Revises: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"

ROLES = "'worker_writer', 'worker_reader', 'worker_operator'"
DEFINERS = (
    "reader_tenant()",
    "reader_session()",
    "reader_sees_every_session()",
    "allowed_tenant(text)",
    "tasks_with_metadata(text, jsonb)",
    "trajectories_with_steps(text, jsonb)",
    "metrics_with_tags(text, jsonb)",
    "nearest_agent_knowledge(text, text, integer)",
    "nearest_knowledge_entries(text, text, integer)",
)
"""Functions that run with the rights of the tables' owner."""
OWNERS = (
    "worker_roles_exist()",
    "session_column_of(regclass)",
    "secure_table(regclass)",
    "grant_table(regclass)",
    "secure_tables()",
)
"""Functions that the owner calls."""


def upgrade() -> None:
    tenant_roles()
    readers()
    contained()
    nearest("agent_knowledge", "knowledge_id")
    nearest("knowledge_entries", "id")
    for function in DEFINERS:
        protect(function)
    policies()
    op.execute("SELECT secure_tables()")


def tenant_roles() -> None:
    # Not a setting of the role: whoever logs in may change any setting, and nobody but the owner changes this table.
    op.execute("""
CREATE TABLE tenant_roles (
    role_name TEXT NOT NULL,
    tenant_id TEXT,
    session_id UUID,
    every_session BOOLEAN NOT NULL DEFAULT false,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CONSTRAINT pk_tenant_roles PRIMARY KEY (role_name),
    CONSTRAINT ck_tenant_roles_tenant_id CHECK (tenant_id ~ '^[A-Za-z0-9_-]{1,64}$'),
    CONSTRAINT ck_tenant_roles_sessions CHECK (session_id IS NULL OR NOT every_session)
)""")


def readers() -> None:
    # session_user is who has logged in, whatever SET ROLE says. A setting only narrows what the role may see, but for
    # a role without a tenant: that is an application which is trusted to say for whom it reads.
    op.execute("""
CREATE FUNCTION reader_tenant() RETURNS text LANGUAGE sql STABLE PARALLEL RESTRICTED SECURITY DEFINER AS $$
SELECT CASE WHEN r.tenant_id IS NULL OR fence.tenant_id IS NULL OR fence.tenant_id = r.tenant_id
    THEN coalesce(r.tenant_id, fence.tenant_id) END
FROM tenant_roles r
CROSS JOIN (SELECT nullif(current_setting('app.tenant_id', true), '') AS tenant_id) fence
WHERE r.role_name = session_user
$$""")
    op.execute("""
CREATE FUNCTION reader_session() RETURNS uuid LANGUAGE sql STABLE PARALLEL RESTRICTED SECURITY DEFINER AS $$
SELECT CASE WHEN r.session_id IS NULL OR fence.session_id IS NULL OR fence.session_id = r.session_id
    THEN coalesce(r.session_id, fence.session_id) END
FROM tenant_roles r
CROSS JOIN (SELECT nullif(current_setting('app.session_id', true), '')::uuid AS session_id) fence
WHERE r.role_name = session_user
$$""")
    op.execute("""
CREATE FUNCTION reader_sees_every_session() RETURNS boolean LANGUAGE sql STABLE PARALLEL RESTRICTED SECURITY DEFINER AS $$
SELECT coalesce((
    SELECT r.every_session AND nullif(current_setting('app.session_id', true), '') IS NULL
    FROM tenant_roles r WHERE r.role_name = session_user), false)
$$""")
    # In a function that runs with the owner's rights current_user is the owner.
    op.execute("""
CREATE FUNCTION allowed_tenant(wanted text) RETURNS text LANGUAGE sql STABLE PARALLEL RESTRICTED SECURITY DEFINER AS $$
SELECT wanted
WHERE pg_has_role(session_user, current_user, 'USAGE')
    OR pg_has_role(session_user, to_regrole('worker_writer'), 'USAGE')
    OR pg_has_role(session_user, to_regrole('worker_operator'), 'USAGE')
    OR pg_has_role(session_user, to_regrole('worker_reader'), 'USAGE') AND wanted = reader_tenant()
$$""")


def contained() -> None:
    # A policy must not hand a row to an operator that could tell of it, so under a policy `@>` never meets its GIN
    # index. These meet it, and give keys of one tenant only.
    for function, table, key, column in (
        ("tasks_with_metadata", "tasks", "task_id", "metadata"),
        ("trajectories_with_steps", "trajectories", "trajectory_id", "steps"),
        ("metrics_with_tags", "metrics", "id", "tags"),
    ):
        op.execute(f"""
CREATE FUNCTION {function}(tenant text, wanted jsonb) RETURNS SETOF uuid
LANGUAGE sql STABLE PARALLEL RESTRICTED SECURITY DEFINER ROWS 10 AS $$
SELECT {key} FROM {table} WHERE {column} @> wanted AND tenant_id = (SELECT allowed_tenant(tenant))
$$""")  # noqa: S608 (literals of this file)


def nearest(table: str, key: str) -> None:
    # The index of pgvector gives its few nearest rows of all tenants, so it may give too few of one: then the tenant's
    # own rows are looked at one by one (no index orders by a distance that something was added to).
    chosen = f"""SELECT {key} FROM {table}
        WHERE tenant_id = seen AND embedding IS NOT NULL
        ORDER BY embedding_distance(embedding, to_embedding(wanted))"""  # noqa: S608 (literals of this file)
    op.execute(f"""
CREATE FUNCTION nearest_{table}(tenant text, wanted text, most integer)
RETURNS TABLE (key uuid, distance double precision)
LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SECURITY DEFINER ROWS 10 AS $$
DECLARE
    seen text := allowed_tenant(tenant);
    keys uuid[];
BEGIN
    keys := ARRAY({chosen} LIMIT most);
    IF cardinality(keys) < most THEN
        keys := ARRAY({chosen} + 0 LIMIT most);
    END IF;
    RETURN QUERY
        SELECT n.{key}, embedding_distance(n.embedding, to_embedding(wanted)) FROM {table} n
        WHERE n.{key} = ANY (keys) AND n.tenant_id = seen
        ORDER BY embedding_distance(n.embedding, to_embedding(wanted)) + 0;
END
$$""")  # noqa: S608 (literals of this file)


def protect(function: str) -> None:
    """Names mean the server's own things, then those of the schema that this runs in, and never what a session made."""
    op.execute(f"""
DO $$
BEGIN
    EXECUTE format(
        'ALTER FUNCTION {function} SET search_path = pg_catalog, %I, pg_temp', current_schema());
END
$$""")
    op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")


def policies() -> None:
    op.execute(f"""
CREATE FUNCTION worker_roles_exist() RETURNS boolean LANGUAGE sql STABLE AS
$$SELECT count(*) = 3 FROM pg_roles WHERE rolname IN ({ROLES})$$""")  # noqa: S608 (literals of this file)
    session_of()
    secure_table()
    grant_table()
    secure_tables()
    for function in OWNERS:
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")


def session_of() -> None:
    # A table belongs to sessions if it goes with them: directly, or with something that does.
    op.execute("""
CREATE FUNCTION session_column_of(chosen regclass) RETURNS text LANGUAGE sql STABLE AS $$
WITH RECURSIVE owned AS (
    SELECT to_regclass('sessions')::oid AS oid
    UNION
    SELECT k.conrelid FROM pg_constraint k
    JOIN owned o ON k.confrelid = o.oid AND k.contype = 'f' AND k.confdeltype = 'c'
)
SELECT CASE WHEN chosen = to_regclass('sessions') THEN 'id' ELSE 'session_id' END
WHERE chosen IN (SELECT oid FROM owned)
$$""")


def secure_table() -> None:
    # Changes nothing, and waits for nobody, where all is as it should be. A partition has no policy for readers: they
    # read the whole table.
    op.execute("""
CREATE FUNCTION secure_table(chosen regclass) RETURNS void LANGUAGE plpgsql SET client_min_messages = warning AS $$
DECLARE
    it pg_class;
    owner text;
    within text := 'tenant_id = (SELECT reader_tenant())';
    sessions text := session_column_of(chosen);
    account boolean := chosen IN (to_regclass('users'), to_regclass('api_keys'));
    closed boolean := chosen = to_regclass('tenant_roles');
BEGIN
    SELECT c.* INTO it FROM pg_class c WHERE c.oid = chosen;
    owner := pg_get_userbyid(it.relowner);
    IF NOT worker_roles_exist() THEN
        RETURN;
    END IF;
    IF it.relrowsecurity AND it.relforcerowsecurity AND EXISTS (
        SELECT FROM pg_policy WHERE polrelid = chosen AND polname = 'owner' AND polroles = ARRAY[it.relowner])
    THEN
        RETURN;
    END IF;
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', chosen);
    EXECUTE format('DROP POLICY IF EXISTS owner ON %s', chosen);
    EXECUTE format('DROP POLICY IF EXISTS worker_writer ON %s', chosen);
    EXECUTE format('DROP POLICY IF EXISTS worker_operator ON %s', chosen);
    EXECUTE format('DROP POLICY IF EXISTS worker_reader ON %s', chosen);
    EXECUTE format('CREATE POLICY owner ON %s TO %I USING (true) WITH CHECK (true)', chosen, owner);
    IF account THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE POLICY worker_writer ON %s TO worker_writer USING (true) WITH CHECK (true)', chosen);
    EXECUTE format('CREATE POLICY worker_operator ON %s TO worker_operator USING (true) WITH CHECK (true)', chosen);
    IF it.relispartition OR closed THEN
        RETURN;
    END IF;
    IF sessions IS NOT NULL THEN
        within := within || format(
            ' AND (%I = (SELECT reader_session()) OR (SELECT reader_sees_every_session()))', sessions);
    ELSIF chosen = to_regclass('lifecycle_events') THEN
        within := within ||
            ' AND (entity_type <> ALL (ARRAY[''workspace'', ''project'', ''run'', ''step'', ''dag_node'', ''approval_request''])'
            ' OR lower(data ->> ''session_id'') = (SELECT reader_session()::text)'
            ' OR (SELECT reader_sees_every_session()))';
    ELSIF chosen = to_regclass('dead_letters') THEN
        within := within || ' AND (family <> ''workflow'' OR (SELECT reader_sees_every_session()))';
    END IF;
    EXECUTE format('CREATE POLICY worker_reader ON %s FOR SELECT TO worker_reader USING (%s)', chosen, within);
END
$$""")


def grant_table() -> None:
    # What a table is shows in its columns: an entity has `placeholder`, a fact has `content_digest`.
    op.execute("""
CREATE FUNCTION grant_table(chosen regclass) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    names text[] := ARRAY(
        SELECT attname FROM pg_attribute WHERE attrelid = chosen AND attnum > 0 AND NOT attisdropped);
    name text := (SELECT relname FROM pg_class WHERE oid = chosen);
    part boolean := (SELECT relispartition FROM pg_class WHERE oid = chosen);
    writer text;
    operator text := 'SELECT';
    reader boolean := 'tenant_id' = ANY (names) AND NOT part
        AND name <> ALL (ARRAY['dead_letters', 'loss_ledger', 'agent_audit_seals', 'tenant_roles']);
BEGIN
    IF NOT worker_roles_exist() THEN
        RETURN;
    END IF;
    EXECUTE format('REVOKE ALL ON %s FROM worker_writer, worker_reader, worker_operator', chosen);
    IF name IN ('users', 'api_keys', 'alembic_version') THEN
        RETURN;
    END IF;
    writer := CASE
        WHEN part THEN 'SELECT'
        WHEN 'placeholder' = ANY (names) THEN 'SELECT, INSERT, UPDATE'
        WHEN 'content_digest' = ANY (names) THEN 'SELECT, INSERT'
        WHEN name = 'dead_letters' THEN 'SELECT, INSERT, UPDATE'
        WHEN name = 'outbox' THEN 'SELECT, INSERT, DELETE'
        WHEN name = 'suspects' THEN 'SELECT, INSERT, UPDATE, DELETE'
        WHEN name = 'loss_ledger' THEN 'SELECT, INSERT'
        ELSE 'SELECT' END;
    IF name = 'dead_letters' THEN
        operator := 'SELECT, INSERT, UPDATE';
    ELSIF name IN ('outbox', 'loss_ledger') THEN
        operator := 'SELECT, INSERT';
    END IF;
    IF name <> 'tenant_roles' THEN
        EXECUTE format('GRANT %s ON %s TO worker_writer', writer, chosen);
    END IF;
    EXECUTE format('GRANT %s ON %s TO worker_operator', operator, chosen);
    IF reader THEN
        EXECUTE format('GRANT SELECT ON %s TO worker_reader', chosen);
    END IF;
END
$$""")


def secure_tables() -> None:
    # Each migration that adds a table calls this afterwards. Without the roles nobody but the owner would see a row
    # under row-level security, so it stays off until they are there.
    op.execute(f"""
CREATE FUNCTION secure_tables() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    role text;
    it record;
BEGIN
    FOREACH role IN ARRAY ARRAY[{ROLES}] LOOP
        BEGIN
            IF to_regrole(role) IS NULL THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role);
            END IF;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN
                NULL;  -- another database of this server was faster
            WHEN insufficient_privilege THEN
                RAISE WARNING 'row-level security stays off: there is no role %, and % may make none', role, current_user
                    USING HINT = 'As a superuser: CREATE ROLE worker_writer; CREATE ROLE worker_reader; '
                        'CREATE ROLE worker_operator; then, as the owner of the tables: SELECT secure_tables();';
                RETURN false;
        END;
    END LOOP;
    FOR it IN
        SELECT c.oid::regclass AS chosen, EXISTS (
            SELECT FROM pg_attribute
            WHERE attrelid = c.oid AND attname = 'tenant_id' AND NOT attisdropped) AS has_tenant
        FROM pg_class c
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
            AND pg_has_role(c.relowner, 'USAGE')
            AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype = 'e')
    LOOP
        IF it.has_tenant THEN
            PERFORM secure_table(it.chosen);
        END IF;
        PERFORM grant_table(it.chosen);
    END LOOP;
    FOR it IN
        SELECT oid::regclass AS chosen FROM pg_class
        WHERE relnamespace = current_schema()::regnamespace AND relkind = 'v'
            AND pg_has_role(relowner, 'USAGE') AND 'security_invoker=true' = ANY (reloptions)
    LOOP
        EXECUTE format('GRANT SELECT ON %s TO {ROLES.replace("'", "")}', it.chosen);
    END LOOP;
    -- Partitions that come later, and what a migration forgets: never for readers, who need a policy first.
    EXECUTE format(
        'ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT ON TABLES TO worker_writer, worker_operator',
        current_schema());
    GRANT EXECUTE ON FUNCTION {", ".join(DEFINERS)} TO {ROLES.replace("'", "")};
    RETURN true;
END
$$""")  # noqa: S608 (literals of this file)


def downgrade() -> None:
    # The roles stay: they are the server's, other databases may know them, and people are members of them.
    op.execute(f"""
DO $$
DECLARE
    it record;
BEGIN
    FOR it IN
        SELECT p.polname, p.polrelid::regclass AS chosen FROM pg_policy p
        JOIN pg_class c ON c.oid = p.polrelid
        WHERE c.relnamespace = current_schema()::regnamespace
            AND p.polname IN ('owner', {ROLES})
    LOOP
        EXECUTE format('DROP POLICY %I ON %s', it.polname, it.chosen);
    END LOOP;
    FOR it IN
        SELECT oid::regclass AS chosen FROM pg_class
        WHERE relnamespace = current_schema()::regnamespace AND relrowsecurity
    LOOP
        EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY', it.chosen);
    END LOOP;
    FOR it IN SELECT rolname FROM pg_roles WHERE rolname IN ({ROLES}) LOOP
        EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA %I FROM %I', current_schema(), it.rolname);
        EXECUTE format(
            'ALTER DEFAULT PRIVILEGES IN SCHEMA %I REVOKE ALL ON TABLES FROM %I', current_schema(), it.rolname);
    END LOOP;
END
$$""")  # noqa: S608 (literals of this file)
    for function in (*reversed(OWNERS), *reversed(DEFINERS)):
        op.execute(f"DROP FUNCTION {function}")
    op.execute("DROP TABLE tenant_roles")
