"""Tenancy: readers of one tenant try every way to another's rows, and readers of one session to another's."""

import asyncio
import os
from uuid import UUID

import asyncpg
import pytest
from support.tables import connected, count, rows
from support.tenants import Logins, may_make_roles

from contracts.identifiers import uuid7
from contracts.workflow_facts import MessageSent
from contracts.workflow_runs import RunCreated, WorkspaceCreated
from worker.families import plan
from worker.operations.seed import seed
from worker.operations.tenancy_checks import examine
from worker.repositories.errors import BadQuery
from worker.repositories.groups.knowledge import KnowledgeEntryRepository
from worker.repositories.groups.tasks import TaskRepository
from worker.repositories.query import Filter
from worker.repositories.scope import Scope
from worker.repositories.search import _CONTAINED
from worker.repositories.service import DatabaseService
from worker.settings import Settings
from worker.store import migrations
from worker.store.database import Database
from worker.store.embedding import DIMENSIONS
from worker.store.partitions import ensure_partitions
from worker.store.schema import metadata

TENANTS = ("acme", "bee")
ONE, OTHER = uuid7(), uuid7()
"""Two sessions of acme."""
ROLES = ("worker_writer", "worker_reader", "worker_operator")
HIDDEN = {
    "users",
    "api_keys",
    "dead_letters",
    "loss_ledger",
    "agent_audit_seals",
    "tenant_roles",
    "outbox",
    "suspects",
    "schema_versions",
    "alembic_version",
}
"""Tables that no reader may look into."""
OF_SESSIONS = {name for name, one in metadata.tables.items() if "session_column" in one.info}

denied = pytest.raises(asyncpg.InsufficientPrivilegeError)


def load(url: str) -> Settings:
    return Settings.load(database_url=url, amqp_url="amqp://not-used", name="test")


async def fill(url: str) -> None:
    """Two tenants with the same keys; acme has two sessions beside."""
    settings = load(url)
    for tenant in TENANTS:
        await seed(settings, "test", tenant=tenant, force=True)
    async with DatabaseService(settings) as service:
        for session in (ONE, OTHER):
            run = uuid7()
            said = {"sender": "a", "recipient": "b", "content": "secret"}
            made = {
                "sessions": WorkspaceCreated(session_id=session, name=str(session)),
                "workflow_runs": RunCreated(session_id=session, run_id=run, mode="one_shot"),
                "messages": MessageSent(session_id=session, run_id=run, **said),
            }
            for table, content in made.items():
                async with service.transaction(Scope("acme", session=session)) as work:
                    await work.table(table).create(content.event(source="/a", tenant="acme"))
    async with connected(url) as admin:
        await admin.execute("ANALYZE")


@pytest.fixture(scope="module")
def _filled(postgres, _template):
    """The name of a database with rows, that each test has a copy of."""
    name = f"tenants_{os.getpid()}"
    asyncio.run(fill(postgres.create(name, template=_template)))
    yield name
    postgres.drop(name)


@pytest.fixture
async def logins(postgres, _filled):
    """A database with rows of two tenants, and a reader of each."""
    name = f"{_filled}_copy"
    url = postgres.create(name, template=_filled)
    made = Logins(url)
    try:
        if not await may_make_roles(url):
            pytest.skip("only a superuser makes roles")
        for tenant in TENANTS:
            await made.reader(tenant, tenant)
        yield made
    finally:
        await made.drop()
        postgres.drop(name)


async def relations(url: str) -> dict[str, bool]:
    """Every table and view with a tenant, and whether it is a partition."""
    found = await rows(
        url,
        "SELECT c.relname, c.relispartition FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
        " AND a.attname = 'tenant_id' WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')",
    )
    return {row["relname"]: row["relispartition"] for row in found}


@pytest.fixture
async def secured_url(database_url):
    """A migrated database with the group roles."""
    if not await may_make_roles(database_url):
        pytest.skip("only a superuser makes roles")
    return database_url


async def test_every_table_of_tenants_is_under_forced_row_security(secured_url):
    """Partitions too; every view asks as its reader; a table of sessions says so in its policy."""
    loose = await rows(
        secured_url,
        "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'"
        " WHERE c.relnamespace = 'public'::regnamespace AND (c.relkind IN ('r', 'p')"
        " AND NOT (c.relrowsecurity AND c.relforcerowsecurity)"
        " OR c.relkind = 'v' AND NOT coalesce('security_invoker=true' = ANY (c.reloptions), false))",
    )
    assert loose == []
    policies = await rows(
        secured_url,
        "SELECT polrelid::regclass::text AS name, pg_get_expr(polqual, polrelid) AS said FROM pg_policy"
        " WHERE polname = 'worker_reader'",
    )
    said = {row["name"]: row["said"] for row in policies}
    readable = {name for name, one in metadata.tables.items() if "tenant_id" in one.c}
    assert set(said) == readable - {"users", "api_keys", "tenant_roles"}
    assert all("(tenant_id = ( SELECT reader_tenant()" in one for one in said.values())
    assert {n for n, one in said.items() if "reader_session" in one} == OF_SESSIONS | {
        "lifecycle_events"
    }
    entities = {metadata.tables[name].info.get("entity_type") for name in OF_SESSIONS} - {None}
    assert all(f"'{entity}'" in said["lifecycle_events"] for entity in entities)


async def test_roles_may_do_what_they_are_for_and_no_more(secured_url):
    """Readers read whole tables and nothing else; nobody but the owner deletes, or changes a fact."""
    found = await rows(
        secured_url,
        "SELECT c.relname, c.relispartition, a.grantee::regrole::text AS role, a.privilege_type AS privilege"
        " FROM pg_class c CROSS JOIN aclexplode(c.relacl) a"
        " WHERE c.relnamespace = 'public'::regnamespace AND a.grantee <> c.relowner",
    )
    held = {(row["role"], row["relname"], row["privilege"]) for row in found}
    assert {role for role, _, _ in held} == set(ROLES)
    readers = [row for row in found if row["role"] == "worker_reader"]
    assert {row["privilege"] for row in readers} == {"SELECT"}
    assert not any(row["relispartition"] for row in readers)
    assert not HIDDEN & {row["relname"] for row in readers}
    assert {name for role, name, what in held if what == "DELETE"} == {"outbox", "suspects"}
    changed = {name for role, name, what in held if what == "UPDATE"}
    entities = {e.table.name for e in plan().entities.values()}
    assert changed == entities | {"dead_letters", "suspects"}
    inserted = {name for role, name, what in held if role == ROLES[0] and what == "INSERT"}
    facts = {fact.table.name for fact in plan().facts.values()} | {"lifecycle_events"}
    assert inserted == entities | facts | {"dead_letters", "outbox", "suspects", "loss_ledger"}
    operator = {(name, what) for role, name, what in held if role == ROLES[2] and what != "SELECT"}
    assert operator == {
        ("dead_letters", "INSERT"),
        ("dead_letters", "UPDATE"),
        ("outbox", "INSERT"),
        ("loss_ledger", "INSERT"),
    }
    assert not any(name in ("users", "api_keys") for _, name, _ in held)
    [attributes] = await rows(
        secured_url,
        "SELECT bool_or(rolcanlogin OR rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb) AS strong"
        " FROM pg_roles WHERE rolname LIKE 'worker\\_%'",
    )
    assert attributes["strong"] is False


async def test_a_reader_sees_its_tenant_only_in_every_table_and_view(logins):
    """Its rows are there, the other's are not, whether it asks for all, for the other's, or for a count."""
    seen = set()
    async with logins.login("acme") as acme:
        for name, partition in (await relations(logins.superuser)).items():
            if partition or name in HIDDEN:
                with denied:
                    await acme.fetch(f"SELECT * FROM {name} LIMIT 1")
                continue
            tenants = await acme.fetch(f"SELECT DISTINCT tenant_id FROM {name}")
            assert {tenant for (tenant,) in tenants} <= {"acme"}, name
            assert await acme.fetchval(f"SELECT count(*) FROM {name} WHERE tenant_id = 'bee'") == 0
            seen |= {name} if tenants else set()
    facts_and_entities = {
        n for n, t in metadata.tables.items() if t.info["kind"] in ("fact", "entity")
    }
    assert facts_and_entities - seen == OF_SESSIONS  # without a session none of these shows
    async with connected(logins.superuser) as admin:
        for name in facts_and_entities:
            assert await admin.fetchval(f"SELECT count(*) FROM {name} WHERE tenant_id = 'bee'"), (
                name
            )


TELLTALE = """
CREATE FUNCTION pg_temp.tell(what anyelement, tenant text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$
BEGIN
    IF tenant <> 'acme' THEN RAISE EXCEPTION 'seen: %', what; END IF;
    RETURN true;
END
$$"""
CROSSINGS = (
    "SELECT 1 FROM tasks t JOIN execution_logs l USING (task_id) WHERE l.tenant_id = 'bee' OR t.tenant_id = 'bee'",
    "SELECT 1 FROM tasks WHERE tenant_id = 'bee' AND task_id IN (SELECT task_id FROM tasks)",
    "SELECT 1 FROM active_tasks v FULL JOIN tasks t USING (task_id) WHERE 'bee' IN (v.tenant_id, t.tenant_id)",
    "SELECT 1 FROM tasks WHERE pg_temp.tell(request_text, tenant_id) AND tenant_id <> 'acme'",
    "SELECT 1 FROM execution_logs WHERE pg_temp.tell(action, tenant_id) AND tenant_id <> 'acme'",
    "SELECT 1 FROM orphans WHERE pg_temp.tell(entity_id, tenant_id) AND tenant_id <> 'acme'",
    "SELECT 1 FROM tasks WHERE CASE WHEN tenant_id = 'acme' THEN 1 ELSE request_text::integer END = 0",
    "SELECT 1 FROM tasks WHERE 1 / (CASE WHEN tenant_id = 'acme' THEN 1 ELSE 0 END) = 0",
    "SELECT tasks_with_metadata('bee', '{}')",
    "SELECT trajectories_with_steps('bee', '[]')",
    "SELECT metrics_with_tags('bee', '{}')",
    f"SELECT * FROM nearest_agent_knowledge('bee', '{[1.0] * DIMENSIONS}', 9)",
    f"SELECT * FROM nearest_knowledge_entries('bee', '{[1.0] * DIMENSIONS}', 9)",
    "SELECT 1 WHERE allowed_tenant('bee') IS NOT NULL",
    "SELECT 1 FROM pg_stats WHERE tablename = 'tasks'",
    "SELECT 1 FROM pg_stats_ext WHERE tablename = 'tasks'",
)
REFUSED = (
    "INSERT INTO tasks (task_id, tenant_id, request_text) VALUES (gen_random_uuid(), 'acme', 'x')",
    "UPDATE tasks SET tenant_id = 'acme'",
    "DELETE FROM tasks",
    "TRUNCATE tasks",
    "SELECT 1 FROM tasks FOR UPDATE",
    "CREATE TABLE probe (id uuid)",
    "UPDATE tenant_roles SET tenant_id = 'bee'",
    "INSERT INTO tenant_roles VALUES (session_user, 'bee')",
    "SELECT * FROM tenant_roles",
    "COPY execution_logs_default TO STDOUT",
    "COPY dead_letters TO STDOUT",
    "SET ROLE worker_writer",
    "SET SESSION AUTHORIZATION postgres",
    "ALTER TABLE tasks DISABLE ROW LEVEL SECURITY",
    "CREATE POLICY mine ON tasks USING (true)",
    "SELECT secure_tables()",
    "SET session_replication_role = replica",
    "SELECT pg_read_file('PG_VERSION')",
)


@pytest.fixture
async def acme(logins):
    """Acme's reader, who has made a function that tells of what it is shown."""
    async with logins.login("acme") as connection:
        await connection.execute(TELLTALE)
        yield connection


async def test_no_question_gives_another_tenants_row(acme):
    """By join, by view, by a function or an error that would tell of the row, by the searches, by statistics."""
    for preparation in (
        "SELECT 1",
        "SET app.tenant_id = 'bee'",
        "RESET app.tenant_id; SET enable_seqscan = off",
        "SET ROLE worker_reader",
        "SET search_path = pg_temp, public",
    ):
        await acme.execute(preparation)
        for sql in CROSSINGS:
            assert await acme.fetch(sql) == [], (preparation, sql)


async def test_what_a_reader_may_not_do_is_refused(acme):
    """No write, no lock, no foreign key to probe with, no partition, no other role, no change of the rules."""
    for sql in REFUSED:
        try:
            await acme.execute(sql)
        except asyncpg.InsufficientPrivilegeError:
            continue
        pytest.fail(f"not refused: {sql}")


async def test_settings_only_narrow_what_a_tenants_reader_sees(acme):
    """app.tenant_id of another shows nothing, SET ROLE changes nothing, row_security = off is an error."""
    mine = await acme.fetchval("SELECT count(*) FROM tasks")
    assert mine
    await acme.execute("SET app.tenant_id = 'bee'")
    assert await acme.fetchval("SELECT count(*) FROM tasks") == 0
    await acme.execute("SET app.tenant_id = 'acme'; SET ROLE worker_reader")
    assert await acme.fetchval("SELECT count(*) FROM tasks") == mine
    await acme.execute("SET row_security = off")
    with denied:
        await acme.fetch("SELECT * FROM tasks")


async def test_objects_of_a_session_do_not_deceive_the_owners_functions(acme):
    """A temporary table or operator of the same name is not what a function with the owner's rights looks at."""
    await acme.execute(
        "CREATE TEMP TABLE tenant_roles (role_name, tenant_id, session_id, every_session)"
        " AS SELECT session_user::text, 'bee', NULL::uuid, true"
    )
    await acme.execute("SET search_path = pg_temp, public, pg_catalog")
    assert await acme.fetchval("SELECT public.reader_tenant()") == "acme"
    assert await acme.fetchval("SELECT public.reader_sees_every_session()") is False
    assert await acme.fetch("SELECT public.tasks_with_metadata('bee', '{}')") == []
    assert await acme.fetch("SELECT 1 FROM public.tasks WHERE tenant_id = 'bee'") == []


async def test_copies_and_plans_hold_only_rows_of_the_tenant(acme, tmp_path):
    """COPY of a table and of a query; an executed plan shows none of the other's values."""
    for source in ("tasks", "(SELECT * FROM lifecycle_events)"):
        with (tmp_path / "copy").open("wb") as file:
            if source == "tasks":
                await acme.copy_from_table("tasks", output=file)
            else:
                await acme.copy_from_query("SELECT * FROM lifecycle_events", output=file)
        text = (tmp_path / "copy").read_text()
        assert "\tacme\t" in text
        assert "\tbee\t" not in text
    plan_ = await acme.fetch(
        "EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM tasks WHERE tenant_id = 'bee'"
    )
    assert " rows=0" in plan_[0][0].partition("actual")[2]


async def session_rows(connection: asyncpg.Connection) -> dict[str, set[UUID | None]]:
    """The sessions of which each table of group D shows rows."""
    found = {}
    for name in OF_SESSIONS:
        column = metadata.tables[name].info["session_column"]
        shown = await connection.fetch(f"SELECT DISTINCT {column} FROM {name}")
        found[name] = {session for (session,) in shown}
    return found


async def test_one_session_never_shows_anothers_rows(logins):
    """A reader sees the session that it names, one bound to a session that one only, one of all sessions each."""
    await logins.reader("bound", "acme", session=ONE)
    await logins.reader("all", "acme", every_session=True)
    history = "SELECT DISTINCT data ->> 'session_id' FROM lifecycle_events WHERE data ? 'session_id' AND source = '/a'"
    async with (
        logins.login("acme") as free,
        logins.login("bound") as bound,
        logins.login("all") as whole,
    ):
        assert set().union(*(await session_rows(free)).values()) == set()
        assert await free.fetch(history) == []
        for session in (ONE, OTHER):
            await free.execute(f"SET app.session_id = '{session}'")
            seen = await session_rows(free)
            assert seen["messages"] == seen["sessions"] == seen["workflow_runs"] == {session}
            assert set().union(*seen.values()) == {session}
            assert await free.fetch(history) == [(str(session),)]
        assert set().union(*(await session_rows(bound)).values()) == {ONE}
        await bound.execute(f"SET app.session_id = '{OTHER}'")
        assert set().union(*(await session_rows(bound)).values()) == set()
        assert await bound.fetch(history) == []
        assert (await session_rows(whole))["messages"] >= {ONE, OTHER}
        assert len(await whole.fetch(history)) == 2
        await whole.execute(f"SET app.session_id = '{OTHER}'")
        assert set().union(*(await session_rows(whole)).values()) == {OTHER}


async def test_an_application_that_is_trusted_says_for_whom_it_reads(logins):
    """Bound to no tenant it sees what app.tenant_id names, through the repositories too; without it, nothing."""
    await logins.reader("app", None)
    async with logins.login("app") as app:
        assert await app.fetchval("SELECT count(*) FROM tasks") == 0
        for tenant in TENANTS:
            await app.execute(f"SET app.tenant_id = '{tenant}'")
            assert [row[0] for row in await app.fetch("SELECT DISTINCT tenant_id FROM tasks")] == [
                tenant
            ]
    async with DatabaseService(load(logins.url("app"))) as service:
        for tenant in TENANTS:
            async with service.reading(Scope(tenant)) as work:
                page = await work.repository(TaskRepository).find(
                    [Filter("metadata", "contains", {})]
                )
                assert page.rows
                assert {row["tenant_id"] for row in page.rows} == {tenant}


async def test_a_role_that_nobody_bound_sees_nothing(logins):
    """A member of worker_reader without a line in tenant_roles; a login role that is in no group may not even ask."""
    await logins.make("unbound", "worker_reader")
    await logins.make("nobody")
    async with logins.login("unbound") as unbound, logins.login("nobody") as nobody:
        assert await unbound.fetchval("SELECT count(*) FROM tasks") == 0
        assert await unbound.fetch("SELECT tasks_with_metadata('acme', '{}')") == []
        for sql in ("SELECT 1 FROM tasks", "SELECT tasks_with_metadata('acme', '{}')"):
            with denied:
                await nobody.fetch(sql)
        async with connected(logins.superuser) as admin:  # a mistake that is easily made
            everything = f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {logins.name('nobody')}"
            await admin.execute(everything)
            part = await admin.fetchval(
                "SELECT tableoid::regclass::text FROM lifecycle_events LIMIT 1"
            )
            assert await admin.fetchval(f"SELECT count(*) FROM {part}")
        for name in ("tasks", "execution_logs", "lifecycle_events", part):
            assert await nobody.fetchval(f"SELECT count(*) FROM {name}") == 0


async def test_owner_and_writer_work_under_the_force_of_the_policies(logins):
    """An owner without BYPASSRLS deletes with the cascade; a writer's upsert meets foreign keys and conflicts."""
    await logins.make("owner")
    await logins.make("writer", "worker_writer")
    name = logins.superuser.rpartition("/")[2]
    async with connected(logins.superuser) as admin:
        mine = await admin.fetchval("SELECT current_user")
        tables = await admin.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')"
        )
        await admin.execute(f'GRANT CREATE ON DATABASE "{name}" TO {logins.name("owner")}')
        for (table,) in tables:
            await admin.execute(f'ALTER TABLE "{table}" OWNER TO {logins.name("owner")}')
        functions = await admin.fetch(
            "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
            " AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')"
        )
        await admin.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {logins.name('owner')}")
        for (function,) in functions:
            await admin.execute(f"ALTER FUNCTION {function} OWNER TO {logins.name('owner')}")
    async with logins.login("owner") as owner:
        assert mine
        assert (
            await owner.fetchval("SELECT count(*) FROM tasks") == 0
        )  # the policies are the old owner's
        before = {one.what for one in await tenancy_of(logins.url("owner"))}
        assert any("the owner of" in what for what in before)
        assert await owner.fetchval("SELECT secure_tables()")
        assert await owner.fetchval("SELECT count(*) FROM tasks WHERE tenant_id = 'bee'")
        assert [one.level for one in await tenancy_of(logins.url("owner"))] == ["ok"]
    async with logins.login("writer") as writer:
        task = await writer.fetchval(
            "SELECT task_id FROM execution_logs WHERE tenant_id = 'bee' LIMIT 1"
        )
        upsert = (
            "INSERT INTO tasks (task_id, tenant_id, request_text) VALUES ($1, 'bee', 'again')"
            " ON CONFLICT (task_id, tenant_id) DO UPDATE SET request_text = excluded.request_text RETURNING request_text"
        )
        assert await writer.fetchval(upsert, task) == "again"
        log = (
            "INSERT INTO execution_logs (log_id, tenant_id, task_id, step_number, agent_type, action, status,"
            " timestamp, event_id, source, content_digest) VALUES (gen_random_uuid(), $1, $2, 0, 'a', 'a', 'running',"
            " now(), gen_random_uuid(), '/a', '\\x000102030405060708090a0b0c0d0e0f')"
        )
        await writer.execute(log, "bee", task)
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await writer.execute(log, "cee", task)
        with denied:
            await writer.execute("DELETE FROM execution_logs")
    async with logins.login("owner") as owner:
        acme = await owner.fetchval("SELECT count(*) FROM execution_logs WHERE tenant_id = 'acme'")
        await owner.execute("DELETE FROM tasks WHERE tenant_id = 'bee'")
        assert (
            await owner.fetchval("SELECT count(*) FROM execution_logs WHERE tenant_id = 'bee'") == 0
        )
        assert await owner.fetchval("SELECT count(*) FROM execution_logs") == acme


async def tenancy_of(url: str):
    async with DatabaseService(load(url)) as service, service.database.connection() as connection:
        return await examine(connection)


async def test_without_the_roles_it_stays_off_and_says_so(logins, postgres):
    """An owner who may make no roles migrates all the same; the doctor tells what to do; then it is on."""
    await logins.make("owner")
    name = f"{logins.name('plain')}"
    superuser = postgres.create(name)
    try:
        async with connected(superuser) as admin:
            await admin.execute(f'ALTER DATABASE "{name}" OWNER TO {logins.name("owner")}')
            await admin.execute("ALTER ROLE worker_reader RENAME TO worker_reader_aside")
            try:
                url = logins.url("owner").rpartition("/")[0] + "/" + name
                await asyncio.to_thread(migrations.upgrade, url)
                [found] = await tenancy_of(url)
                assert (found.level, "CREATE ROLE worker_reader;" in found.remedy) == ("mend", True)
                assert await count(url, "tasks") == 0
            finally:
                await admin.execute("ALTER ROLE worker_reader_aside RENAME TO worker_reader")
        [open_] = await tenancy_of(url)
        assert open_.level == "mend"
        assert "no row-level security on" in open_.what
        assert (await rows(url, "SELECT secure_tables() AS done"))[0]["done"] is True
        [well] = await tenancy_of(url)
        assert well.level == "ok"
    finally:
        postgres.drop(name)


async def test_searches_that_a_policy_keeps_from_their_index_are_known(secured_url):
    """Every index whose operators are not leakproof is one that a function searches, and there is no other."""
    found = await rows(
        secured_url,
        "SELECT DISTINCT t.relname, a.attname, m.amname FROM pg_index x"
        " JOIN pg_class t ON t.oid = x.indrelid AND NOT t.relispartition AND t.relrowsecurity"
        " JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am m ON m.oid = i.relam"
        " CROSS JOIN unnest(x.indkey::int2[], x.indclass::oid[]) AS k(number, class)"
        " JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.number"
        " JOIN pg_opclass c ON c.oid = k.class"
        " JOIN pg_amop o ON o.amopfamily = c.opcfamily AND o.amoplefttype = c.opcintype"
        "   AND o.amoprighttype = c.opcintype"
        " JOIN pg_operator r ON r.oid = o.amopopr JOIN pg_proc p ON p.oid = r.oprcode"
        " WHERE NOT p.proleakproof",
    )
    of_json = {(row["relname"], row["attname"]) for row in found if row["amname"] == "gin"}
    assert of_json == set(_CONTAINED)
    others = {(row["relname"], row["attname"]) for row in found if row["amname"] != "gin"}
    assert others <= {("agent_knowledge", "embedding"), ("knowledge_entries", "embedding")}


MANY_TASKS = """
INSERT INTO tasks (task_id, tenant_id, request_text, metadata)
SELECT gen_random_uuid(), CASE n % 2 WHEN 0 THEN 'acme' ELSE 'bee' END, 'x', jsonb_build_object('n', n / 2)
FROM generate_series(1, 20000) n"""


async def test_a_readers_searches_use_the_indexes(logins):
    """Contained JSON goes through GIN although a policy stands before the table, and gives the tenant's rows only."""
    async with connected(logins.superuser) as admin:
        await admin.execute(MANY_TASKS)
        await admin.execute("ANALYZE tasks")
        # Before PostgreSQL 18 a function's plan knows no parameters, and so few rows would be read one by one.
        await admin.execute(
            "ALTER FUNCTION tasks_with_metadata(text, jsonb) SET enable_seqscan = off"
        )
    scans = "SELECT pg_stat_get_xact_numscans('ix_tasks_metadata'::regclass)"
    async with (
        DatabaseService(load(logins.url("acme"))) as service,
        service.reading(Scope("acme")) as work,
    ):
        repository = work.repository(TaskRepository)
        some = [Filter("metadata", "contains", {"n": 77})]
        page = await repository.find(some)
        assert [(row["tenant_id"], row["metadata"]) for row in page.rows] == [("acme", {"n": 77})]
        assert await repository.count(some) == 1
        assert (await work.connection.exec_driver_sql(scans)).scalar_one() == 2
        await work.connection.exec_driver_sql("SELECT 1 FROM tasks WHERE metadata @> '{\"n\": 77}'")
        assert (await work.connection.exec_driver_sql(scans)).scalar_one() == 2


async def test_neighbours_are_the_tenants_own(logins):
    """However many of another tenant lie nearer, a reader is given its own, the nearest first, with and without pgvector."""
    near = "(ARRAY[1, n / 10000.0] || array_fill(0.0, ARRAY[1534]))"
    mine = "(ARRAY[1, n] || array_fill(0, ARRAY[1534]))"
    async with connected(logins.superuser) as admin:
        insert = (
            "INSERT INTO knowledge_entries (id, tenant_id, entity_type, entity_name, embedding)"
            " SELECT gen_random_uuid(), '{}', 'x', n::text,"
            " to_embedding(translate({}::text, '{{}}', '[]')) FROM generate_series(1, {}) n"
        )
        await admin.execute(insert.format("bee", near, 300))
        await admin.execute(insert.format("acme", mine, 5))
        for way in ("enable_seqscan", "enable_sort"):  # so few rows would be sorted
            function = "nearest_knowledge_entries(text, text, integer)"
            await admin.execute(f"ALTER FUNCTION {function} SET {way} = off")
    async with (
        DatabaseService(load(logins.url("acme"))) as service,
        service.reading(Scope("acme")) as work,
    ):
        found = await work.repository(KnowledgeEntryRepository).nearest(
            [1.0, 0.0] + [0.0] * (DIMENSIONS - 2), limit=4
        )
        assert [(one.row["tenant_id"], one.row["entity_name"]) for one in found] == [
            ("acme", str(n)) for n in range(1, 5)
        ]
        assert [round(one.distance, 3) for one in found] == [0.293, 0.553, 0.684, 0.757]
        with pytest.raises(BadQuery, match="1,536 numbers, not 2"):
            await work.repository(KnowledgeEntryRepository).nearest([1.0, 0.0])


async def test_months_that_come_later_are_secured(secured_url):
    """A partition that `maintain` adds is under forced row security like its table, and readers have no grant on it."""
    database = Database(secured_url, name="test")
    async with database.engine.connect() as connection:
        [new] = await ensure_partitions(connection, metadata.tables["execution_logs"], 13)
    await database.close()
    [found] = await rows(
        secured_url,
        "SELECT relrowsecurity AND relforcerowsecurity AS forced,"
        " has_table_privilege('worker_reader', oid, 'SELECT') AS readable,"
        " has_table_privilege('worker_operator', oid, 'SELECT') AS counted,"
        " has_table_privilege('worker_writer', oid, 'UPDATE') AS changed,"
        " (SELECT count(*) FROM pg_policy WHERE polrelid = c.oid) AS policies FROM pg_class c WHERE relname = $1",
        new,
    )
    assert tuple(found.values()) == (True, False, True, False, 3)
