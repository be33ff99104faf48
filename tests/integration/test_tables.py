"""The migrated database against the data model page (tests/data_model.toml), and what its constraints refuse."""

import re
import tomllib
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

MODEL = tomllib.loads(Path(__file__).parents[1].joinpath("data_model.toml").read_text())
TABLES = MODEL["tables"]
TYPES = {
    "character varying": "varchar",
    "timestamp with time zone": "timestamptz",
    "double precision": "float8",
}
TASK, OTHER, JOB, SESSION, RUN, BRANCH, STEP, NODE, NEXT, USER = map(
    UUID, map("{:032x}".format, range(1, 11))
)

# One row of every table that its constraints accept.
FACT = "gen_random_uuid(), '/agents/a', '\\x000102030405060708090a0b0c0d0e0f'"
SAMPLES = {
    "tasks": f"(task_id, request_text) VALUES ('{TASK}', 'one'), ('{OTHER}', 'two')",
    "training_jobs": f"(job_id, agent_id, total_iterations) VALUES ('{JOB}', 'a', 10)",
    "task_dependencies": "(task_id, depends_on_task_id, event_id, source, content_digest)"
    f" VALUES ('{TASK}', '{OTHER}', {FACT})",
    "execution_logs": "(log_id, task_id, step_number, agent_type, action, status, timestamp, event_id, source,"
    f" content_digest) VALUES (gen_random_uuid(), '{TASK}', 0, 'infra', 'plan', 'running', now(), {FACT})",
    "lifecycle_events": "(time, entity_type, entity_id, type, data, event_id, source, content_digest)"
    f" VALUES (now(), 'task', '{TASK}', 'task.created', '{{}}', {FACT})",
    "trajectories": "(trajectory_id, job_id, agent_id, query, reward, event_id, source, content_digest)"
    f" VALUES (gen_random_uuid(), '{JOB}', 'a', 'q', 0.5, {FACT})",
    "policy_checkpoints": "(checkpoint_id, job_id, agent_id, iteration, policy_data, event_id, source, content_digest)"
    f" VALUES (gen_random_uuid(), '{JOB}', 'a', 1, '{{}}', {FACT})",
    "sessions": f"(id, name) VALUES ('{SESSION}', 'one')",
    "projects": f"(id, session_id, name) VALUES (gen_random_uuid(), '{SESSION}', 'one')",
    "workflow_runs": "(id, session_id, mode) VALUES"
    f" ('{RUN}', '{SESSION}', 'one_shot'), ('{BRANCH}', '{SESSION}', 'one_shot')",
    "workflow_steps": f"(id, run_id, session_id, step_number) VALUES ('{STEP}', '{RUN}', '{SESSION}', 0)",
    "dag_nodes": "(id, run_id, session_id, node_type) VALUES"
    f" ('{NODE}', '{RUN}', '{SESSION}', 'agent'), ('{NEXT}', '{RUN}', '{SESSION}', 'terminator')",
    "dag_edges": "(from_node_id, to_node_id, run_id, session_id, event_id, source, content_digest)"
    f" VALUES ('{NODE}', '{NEXT}', '{RUN}', '{SESSION}', {FACT})",
    "checkpoints": "(id, run_id, session_id, step_id, checkpoint_type, context_snapshot, event_id, source,"
    f" content_digest) VALUES (gen_random_uuid(), '{RUN}', '{SESSION}', '{STEP}', 'manual', '{{}}', {FACT})",
    "messages": "(id, run_id, session_id, step_id, sender, recipient, content, timestamp, event_id, source,"
    f" content_digest) VALUES (gen_random_uuid(), '{RUN}', '{SESSION}', '{STEP}', 'a', 'b', '', now(), {FACT})",
    "cost_records": "(id, run_id, session_id, step_id, model, prompt_tokens, completion_tokens, total_tokens,"
    f" cost_usd, timestamp, event_id, source, content_digest) VALUES (gen_random_uuid(), '{RUN}', '{SESSION}',"
    f" '{STEP}', 'm', 1, 2, 3, 0.5, now(), {FACT})",
    "approval_requests": "(id, run_id, session_id, step_id, requested_at)"
    f" VALUES (gen_random_uuid(), '{RUN}', '{SESSION}', '{STEP}', now())",
    "branches": "(id, parent_run_id, child_run_id, parent_step_id, session_id, branch_name, event_id, source,"
    f" content_digest) VALUES (gen_random_uuid(), '{RUN}', '{BRANCH}', '{STEP}', '{SESSION}', 'b', {FACT})",
    "workflow_metrics": "(id, run_id, session_id, step_id, timestamp, metric_name, metric_value, event_id, source,"
    f" content_digest) VALUES (gen_random_uuid(), '{RUN}', '{SESSION}', '{STEP}', now(), 'm', 1, {FACT})",
    "files": "(id, run_id, session_id, step_id, file_path, file_type, event_id, source, content_digest)"
    f" VALUES (gen_random_uuid(), '{RUN}', '{SESSION}', '{STEP}', 'a.py', 'code', {FACT})",
    "metrics": "(id, name, value, timestamp, event_id, source, content_digest)"
    f" VALUES (gen_random_uuid(), 'depth', 1, now(), {FACT})",
    "users": f"(id, username, email, password_hash) VALUES ('{USER}', 'ada', 'ada@example.org', 'x')",
    "api_keys": f"(user_id, key_hash, name) VALUES ('{USER}', 'x', 'ci')",
    "agents": "(agent_id, name, type) VALUES ('a', 'A', 'infra')",
    "agent_sessions": f"(session_id, agent_id, started_at) VALUES ('{SESSION}', 'a', now())",
    "agent_decisions": f"(decision_id, session_id, decision_type) VALUES (gen_random_uuid(), '{SESSION}', 'plan')",
    "trust_metrics": "(metric_id, session_id, metric_type, metric_value, event_id, source, content_digest)"
    f" VALUES (gen_random_uuid(), '{SESSION}', 'accuracy', 9.5, {FACT})",
    "agent_knowledge": "(knowledge_id, agent_id, knowledge_type, content)"
    " VALUES (gen_random_uuid(), 'a', 'pattern', '{}')",
    "knowledge_entries": "(id, entity_type, entity_name) VALUES (gen_random_uuid(), 'service', 'billing')",
    "learning_experiences": "(id, agent_id, task_id, experience_type, event_id, source, content_digest)"
    f" VALUES (gen_random_uuid(), 'a', '{TASK}', 'success', {FACT})",
    "conversation_history": "(message_id, session_id, role, content, event_id, source, content_digest)"
    f" VALUES (gen_random_uuid(), '{SESSION}', 'user', 'hello', {FACT})",
    "agent_audit_log": "(audit_id, agent_id, session_id, action_type, timestamp, event_id, source, content_digest)"
    f" VALUES (gen_random_uuid(), 'a', '{SESSION}', 'file_write', now(), {FACT})",
    "agent_audit_seals": "(tenant_id, number, hour, audit_ids, row_digests, previous, seal)"
    " VALUES ('default', 1, now(), '{}', '', sha256(''), sha256(''))",
    "trust_metrics_daily": "(session_id, metric_type, day, measurements, minimum, maximum, total, last_value,"
    f" last_measured_at) VALUES ('{SESSION}', 'accuracy', '2026-11-01', 1, 5, 5, 5, 5, now())",
    "outbox": "(id, family, payload) VALUES (gen_random_uuid(), 'task-lifecycle', '{}')",
    "suspects": "(digest, family) VALUES ('\\x00', 'task-lifecycle')",
    "loss_ledger": "(epoch, source) VALUES (gen_random_uuid(), '/agents/a')",
    "tenant_roles": "(role_name, tenant_id) VALUES ('acme_reader', 'acme')",
    "dead_letters": "(id, exchange, routing_key, family, reason, body)"
    " VALUES (gen_random_uuid(), 'agent.messages', 'task.created', 'task-lifecycle', 'invalid', '{')",
}


@pytest.fixture
async def db(database_url):
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    yield connection
    await connection.close()


@pytest.fixture
async def rows(db):
    """A database with one valid row (two tasks) in every table."""
    assert set(SAMPLES) == set(TABLES) - {"schema_versions"}
    for table, values in SAMPLES.items():
        await db.execute(f"INSERT INTO {table} {values}")
    return db


@pytest.fixture
async def open_rows(rows):
    """The same, with the triggers of append-only tables switched off: what their constraints say is seen only then."""
    for name in (name for name, table in TABLES.items() if table.get("append_only")):
        await rows.execute(f"ALTER TABLE {name} DISABLE TRIGGER USER")
    return rows


def described(row):
    """A column of the catalogue in the words of data_model.toml."""
    kind = row["type"].replace(", ", ",")
    for long, short in TYPES.items():
        kind = kind.replace(long, short)
    text = kind + ("!" if row["attnotnull"] else "")
    if row["attgenerated"]:
        return text + " generated"
    default = re.sub(r"::(text|character varying)$", "", row["default"] or "")
    return f"{text} = {default}" if default else text


async def columns_of(db, table):
    found = await db.fetch(
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull,"
        " a.attgenerated::text AS attgenerated, pg_get_expr(d.adbin, d.adrelid) AS default"
        " FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
        " WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped",
        table,
    )
    return {row["attname"]: described(row) for row in found}


async def constraints_of(db, table, kind):
    found = await db.fetch(
        "SELECT conname, pg_get_constraintdef(oid) AS definition FROM pg_constraint"
        ' WHERE conrelid = $1::text::regclass AND contype = $2::text::"char"',
        table,
        kind,
    )
    return {row["conname"]: row["definition"] for row in found}


async def indexes_of(db, table):
    """Index name to what it indexes, in the words of data_model.toml."""
    found = await db.fetch(
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename = $1",
        table,
    )
    indexes = {}
    for name, definition in found:
        match = re.fullmatch(r".* USING (\w+) \((.*?)\)(?: WHERE (.*))?", definition)
        text = ("" if match[1] == "btree" else f"{match[1]} ") + match[2].replace('"', "")
        where = re.sub(r"::\w+|[()]", "", match[3]) if match[3] else None
        indexes[name] = f"{text} WHERE {where}" if where else text
    return indexes


async def test_there_are_no_other_tables_or_views(db):
    """The tables and views of the page, Alembic's own table, partitions, and nothing else."""
    found = await db.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT relispartition"
    )
    assert {name for (name,) in found} == {*TABLES, *MODEL["views"], "alembic_version"}


async def test_columns_are_those_of_the_page(db):
    """Names, types, NOT NULL and defaults; a default that the page does not name is our own business."""
    vectors = await db.fetchval("SELECT count(*) FROM pg_extension WHERE extname = 'vector'")
    embedding = "vector(1536)" if vectors else "real[]"
    for name, table in TABLES.items():
        expected = MODEL["common"].get(table["kind"], {}) | table["columns"]
        found = await columns_of(db, name)
        assert set(found) == set(expected), name
        for column, text in expected.items():
            text = text.replace("embedding", embedding)  # noqa: PLW2901 (the page's word for either)
            actual = found[column] if " = " in text else found[column].partition(" = ")[0]
            assert actual == text, f"{name}.{column}"


async def test_keys_are_those_of_the_page(db):
    """Primary keys are the id, then the tenant; foreign keys likewise, with their ON DELETE; those to entities wait for the commit."""
    for name, table in TABLES.items():
        assert await constraints_of(db, name, "p") == {
            f"pk_{name}": f"PRIMARY KEY ({', '.join(table['key'])})"
        }
        expected = {}
        for column, target in table.get("foreign_keys", {}).items():
            parent, _, action = target.partition(" ")
            expected[f"fk_{name}_{column}"] = (
                f"FOREIGN KEY ({column}, tenant_id) REFERENCES"
                f" {parent}({TABLES[parent]['key'][0]}, tenant_id) ON DELETE {action}"
                + (" DEFERRABLE INITIALLY DEFERRED" if TABLES[parent]["kind"] == "entity" else "")
            )
        assert await constraints_of(db, name, "f") == expected


async def test_indexes_and_checks_are_there(db):
    """Every index of the page is there; indexes and checks are named after their table."""
    for name, table in TABLES.items():
        found = await indexes_of(db, name)
        assert set(table.get("indexes", ())) <= set(found.values()), name
        assert all(
            index.startswith((f"ix_{name}_", f"pk_{name}", f"uq_{name}_")) for index in found
        )
        checks = await constraints_of(db, name, "c")
        assert all(check.startswith(f"ck_{name}_") for check in checks)


async def test_only_high_volume_tables_are_partitioned(db):
    """The tables of the page that grow without end, by their key."""
    for name, table in TABLES.items():
        found = await db.fetchval(
            "SELECT pg_get_partkeydef(oid) FROM pg_class WHERE oid = $1::text::regclass", name
        )
        assert found == (f"RANGE ({table['key'][0]})" if table.get("partitioned") else None)


async def test_statuses_are_those_of_the_page(open_rows):
    """Each status of the page is accepted, another one is refused by the constraint of its name."""
    rows = open_rows
    named = [(n, c, v) for n, t in TABLES.items() for c, v in t.get("one_of", {}).items()]
    for name, column, values in named:
        for status in values:
            await rows.execute(f"UPDATE {name} SET {column} = $1", status)
        with pytest.raises(asyncpg.CheckViolationError) as refusal:
            await rows.execute(f"UPDATE {name} SET {column} = 'unheard_of'")
        assert refusal.value.constraint_name == f"ck_{name}_{column}"


async def test_bad_rows_are_refused(open_rows):
    """Each bad value of the page is refused, by the constraint that is meant to."""
    rows = open_rows
    named = [(n, c, r) for n, t in TABLES.items() for c, r in t.get("refused", {}).items()]
    for name, change, constraint in named:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refusal:
            await rows.execute(f"UPDATE {name} SET {change}")
        assert refusal.value.constraint_name == constraint, f"{name}: {change}"


@pytest.mark.parametrize("name", [name for name in TABLES if TABLES[name]["kind"] == "entity"])
async def test_a_placeholder_needs_its_key_only(rows, name):
    """A row that was only named may lack what its own message must bring, and nothing more."""
    key = TABLES[name]["key"][0]
    await rows.execute(f"INSERT INTO {name} ({key}, placeholder) VALUES (gen_random_uuid(), true)")
    for column in TABLES[name]["required"]:
        with pytest.raises(asyncpg.CheckViolationError) as refusal:
            await rows.execute(f"UPDATE {name} SET {column} = NULL WHERE NOT placeholder")
        assert refusal.value.constraint_name == f"ck_{name}_{column}_required"


@pytest.mark.parametrize("name", [name for name in TABLES if TABLES[name]["kind"] == "entity"])
async def test_updated_at_is_kept_by_trigger(rows, name):
    """Whoever updates an entity, and whatever they say, updated_at is the time of it."""
    before = await rows.fetchval(f"SELECT max(updated_at) FROM {name}")
    await rows.execute(f"UPDATE {name} SET version = version + 1, updated_at = 'epoch'")
    assert await rows.fetchval(f"SELECT min(updated_at) FROM {name}") > before


async def test_a_tenant_cannot_reach_another_tenants_rows(rows):
    """The same key may exist in two tenants, and a child names the parent of its own tenant only."""
    await rows.execute(
        "INSERT INTO tasks (task_id, tenant_id, request_text) VALUES ($1, 'acme', 'theirs')", TASK
    )
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await rows.execute(
            "INSERT INTO tasks (task_id, tenant_id, parent_task_id, request_text)"
            " VALUES (gen_random_uuid(), 'acme', $1, 'x')",
            OTHER,
        )
    await rows.execute("DELETE FROM tasks WHERE tenant_id = 'acme'")
    assert await rows.fetchval("SELECT count(*) FROM execution_logs") == 1


async def test_what_is_owned_goes_with_its_owner(rows):
    """Deleting a task deletes children, logs and dependencies; a job its trajectories and checkpoints.

    An agent goes with its sessions and all that is in them, but only when nothing of it was audited.
    """
    # PostgreSQL 18 has a code of its own for RESTRICT; before, it is that of any foreign key.
    refused = (asyncpg.RestrictViolationError, asyncpg.ForeignKeyViolationError)
    with pytest.raises(refused):
        await rows.execute("DELETE FROM agents")
    with pytest.raises(refused):
        await rows.execute("DELETE FROM agent_sessions")
    await rows.execute("SET session_replication_role = replica")
    await rows.execute("DELETE FROM agent_audit_log")
    await rows.execute("SET session_replication_role = origin")
    await rows.execute("DELETE FROM agents")
    await rows.execute("UPDATE tasks SET parent_task_id = $1 WHERE task_id = $2", TASK, OTHER)
    await rows.execute("DELETE FROM tasks WHERE task_id = $1", TASK)
    await rows.execute("DELETE FROM training_jobs")
    for name in (
        "tasks",
        "task_dependencies",
        "execution_logs",
        "trajectories",
        "policy_checkpoints",
        "agents",
        "agent_sessions",
        "agent_decisions",
        "trust_metrics",
        "agent_knowledge",
        "conversation_history",
        "learning_experiences",
    ):
        assert await rows.fetchval(f"SELECT count(*) FROM {name}") == 0, name
    assert await rows.fetchval("SELECT count(*) FROM lifecycle_events") == 1


async def test_a_workspace_owns_what_is_in_it(rows):
    """Deleting a session deletes its runs and all that is theirs; deleting a step leaves what only mentions it."""
    group = [
        name
        for name, table in TABLES.items()
        if "session_id" in table["columns"]
        and table["kind"] != "operational"
        and name != "agent_sessions"
        and not table.get("foreign_keys", {}).get("session_id", "").startswith("agent_sessions")
    ]
    assert len(group) == 12
    await rows.execute("DELETE FROM workflow_steps")
    mention = (
        "checkpoints",
        "messages",
        "cost_records",
        "workflow_metrics",
        "files",
        "approval_requests",
    )
    for name in mention:
        assert await rows.fetchval(f"SELECT count(*) FROM {name} WHERE step_id IS NULL") == 1, name
    assert await rows.fetchval("SELECT count(*) FROM branches WHERE parent_step_id IS NULL") == 1
    await rows.execute("UPDATE workflow_runs SET project_id = (SELECT id FROM projects)")
    await rows.execute("DELETE FROM projects")
    assert await rows.fetchval("SELECT count(*) FROM workflow_runs WHERE project_id IS NULL") == 2
    await rows.execute("DELETE FROM sessions")
    for name in group:
        assert await rows.fetchval(f"SELECT count(*) FROM {name}") == 0, name


async def test_no_account_is_there_before_one_is_made(db):
    """No migration inserts an operator, least of all one with a password that others know."""
    assert await db.fetchval("SELECT count(*) FROM users") == 0
    assert await db.fetchval("SELECT count(*) FROM api_keys") == 0


async def test_durations_and_retries_are_worked_out(rows):
    """duration_ms follows started_at and completed_at, retry_count is the attempt less one."""
    row = await rows.fetchrow(
        "UPDATE tasks SET attempt = 3, started_at = '2026-11-21T20:10:04.763Z',"
        " completed_at = '2026-11-21T21:10:05.000Z' WHERE task_id = $1 RETURNING duration_ms, retry_count",
        TASK,
    )
    assert tuple(row) == (3_600_237, 2)
    with pytest.raises(asyncpg.GeneratedAlwaysError):
        await rows.execute("UPDATE tasks SET duration_ms = 1")


async def test_large_columns_are_compressed_as_well_as_the_server_can(db):
    """lz4 where the server has it, on partitions too; else the server's default. Outbox rows stay as they are."""
    methods = await db.fetchval(
        "SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression'"
    )
    found = await db.fetch(
        "SELECT attrelid::regclass::text AS name, attcompression::text FROM pg_attribute"
        " WHERE attname IN ('steps', 'output_full', 'data', 'body', 'policy_data', 'config', 'metadata')"
        " AND attrelid IN (SELECT oid FROM pg_class WHERE relkind IN ('r', 'p')"
        " AND relnamespace = 'public'::regnamespace)"
    )
    expected = "l" if "lz4" in methods else ""
    assert {name: method.strip("\0") for name, method in found} == dict.fromkeys(
        (name for name, _ in found), expected
    )
    storage = "SELECT attstorage::text FROM pg_attribute WHERE attrelid = 'outbox'::regclass AND attname = 'payload'"
    assert await db.fetchval(storage) == "e"


async def test_dead_letters_are_not_held_to_a_tenant_or_a_length(rows):
    """What came may be anything: no tenant, empty names, long texts."""
    await rows.execute(
        "UPDATE dead_letters SET exchange = '', routing_key = repeat('ü', 255), message_id = repeat('x', 70000),"
        " body = '', tenant_id = repeat('t', 300)"
    )


async def test_a_dead_letter_ends_in_one_of_three_ways(rows):
    """How and when a letter was resolved are known together, and a new rejection opens it again."""
    for resolution in ("replayed", "edited", "discarded"):
        await rows.execute(
            "UPDATE dead_letters SET resolved_at = now(), resolution = $1", resolution
        )
    await rows.execute(
        "UPDATE dead_letters SET resolved_at = NULL, resolution = NULL, seen = seen + 1"
    )
