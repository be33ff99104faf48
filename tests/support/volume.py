"""A million log entries, written straight into the tables: for what only size can show."""

import asyncpg

_KEY = "(lpad(to_hex((extract(epoch FROM {time}) * 1000)::bigint), 12, '0') || '7' || substr(md5({salt}), 1, 3) || '8' || substr(md5({salt}), 4, 15))::uuid"
_TASK_TIME = "now() - make_interval(secs => 30 * 86400.0 * (1 - t / {tasks}.0) + 4000)"
_TASK_KEY = _KEY.format(time=_TASK_TIME, salt="'task' || t")
_COMMON = "uuid_in(md5({salt})::cstring), '/agents/load', decode(md5({salt}), 'hex')"


async def load(connection: asyncpg.Connection, *, logs: int, tasks: int) -> None:
    """So many logs of so many tasks over the last 30 days, evenly; every tenth task and fiftieth step failed.

    The moment is fixed by the transaction, so that logs find their tasks.
    """
    steps = logs // tasks
    async with connection.transaction():
        await connection.execute(
            f"""
            INSERT INTO tasks (task_id, tenant_id, type, agent_id, request_text, status, created_at, started_at,
                completed_at, actual_resources, external_ai_used, error_message, version)
            SELECT {_TASK_KEY}, CASE WHEN t % 4 = 0 THEN 'acme' ELSE 'default' END,
                (ARRAY['deploy', 'research', 'review'])[1 + t % 3], 'agent-' || t % 50,
                'do number ' || t, CASE WHEN t % 10 = 0 THEN 'failed' WHEN t % 97 = 0 THEN 'executing' ELSE 'completed' END,
                {_TASK_TIME}, {_TASK_TIME} + interval '5 s',
                CASE WHEN t % 97 = 0 AND t % 10 <> 0 THEN NULL ELSE {_TASK_TIME} + make_interval(secs => 60 + t % 3000) END,
                jsonb_build_object('cpu_seconds', t % 100, 'memory_mb', 512),
                CASE WHEN t % 2 = 0 THEN jsonb_build_object('model', 'model-' || t % 7, 'tokens', t % 9000, 'cost', 0.01 * (t % 300)) END,
                CASE WHEN t % 10 = 0 THEN 'out of quota' END, 2
            FROM generate_series(0, {tasks} - 1) AS t""".format(tasks=tasks)
        )
        time = f"{_TASK_TIME} + make_interval(secs => 5 + 60 * s)"
        salt = "'log' || t || '.' || s"
        await connection.execute(
            f"""
            INSERT INTO execution_logs (log_id, tenant_id, task_id, step_number, agent_type, action, status,
                output_summary, output_full, timestamp, duration_ms, event_id, source, content_digest, created_at)
            SELECT {_KEY.format(time=time, salt=salt)}, CASE WHEN t % 4 = 0 THEN 'acme' ELSE 'default' END, {_TASK_KEY}, s,
                (ARRAY['orchestrator', 'infra', 'desktop', 'code', 'research'])[1 + (t + s) % 5], 'step ' || s || ' of the work',
                CASE WHEN (t * 31 + s) % 50 = 0 THEN 'failed' ELSE 'completed' END, 'went as it should',
                jsonb_build_object('resources', jsonb_build_array('a', 'b', 'c'), 'n', s), {time}, (t * 7 + s * 13) % 5000,
                {_COMMON.format(salt=salt)}, {time}
            FROM generate_series(0, {tasks} - 1) AS t, generate_series(0, {steps} - 1) AS s""".format(
                tasks=tasks
            )
        )
    await connection.execute("VACUUM ANALYZE tasks")
    await connection.execute("VACUUM ANALYZE execution_logs")


async def load_conversations(
    connection: asyncpg.Connection, *, sessions: int, messages: int
) -> None:
    """So many sessions of so many messages each over the last 30 days, their messages among one another."""
    session = "md5('session' || s)::uuid"
    seconds = 30 * 86400.0 / messages
    time = f"now() - interval '30 days' + make_interval(secs => m * {seconds} + s)"
    salt = "'message' || s || '.' || m"
    await connection.execute(
        "INSERT INTO agents (agent_id, tenant_id, name, type, status, is_active, tasks_completed, tasks_failed, version, "
        "created_at) VALUES ('agent-1', 'default', 'one', 'chat', 'idle', true, 0, 0, 1, now())"
    )
    await connection.execute(
        "INSERT INTO agent_sessions (session_id, tenant_id, agent_id, trust_level, session_state, started_at, version, "
        f"created_at) SELECT {session}, 'default', 'agent-1', 0, 'active', now(), 1, now() "
        f"FROM generate_series(1, {sessions}) AS s"
    )
    await connection.execute(
        f"""
        INSERT INTO conversation_history (message_id, tenant_id, session_id, role, content, event_id, source,
            content_digest, created_at)
        SELECT {_KEY.format(time=time, salt=salt)}, 'default', {session}, (ARRAY['user', 'agent', 'tool'])[1 + m % 3],
            repeat('what was said ', 20), {_COMMON.format(salt=salt)}, {time}
        FROM generate_series(1, {messages}) AS m, generate_series(1, {sessions}) AS s"""
    )
    await connection.execute("VACUUM ANALYZE agent_sessions")
    await connection.execute("VACUUM ANALYZE conversation_history")
