"""The ten questions that are asked after something went wrong, or before somebody pays for it.

Each is one statement. Times are those of the events, days are those of UTC, today included; a tenant of null means all
that this role may see. Placeholders, of which nothing but the key is known, are in none.
"""

from worker.reports.report import Report

_TENANT = "(CAST(:tenant AS text) IS NULL OR {0}.tenant_id = CAST(:tenant AS text))"
_SINCE = "now() - make_interval(days => CAST(:days AS int))"
_LIMIT = "LIMIT CAST(:limit AS bigint)"


def _number(member: str) -> str:
    """A number of external_ai_used; null where the publisher wrote anything else."""
    value = f"t.external_ai_used->'{member}'"
    return f"CASE WHEN jsonb_typeof({value}) = 'number' THEN ({value})::numeric END"


FAILED_TASKS = Report(
    "failed-tasks",
    "Tasks that failed, the latest first, with the last step that failed",
    f"""
SELECT t.completed_at AS failed_at, t.task_id, t.tenant_id, t.type, t.agent_id, t.attempt, t.max_retries,
    t.duration_ms, t.error_message, l.step_number AS failed_step, l.action AS failed_action
FROM (
    SELECT * FROM tasks t
    WHERE t.status = 'failed' AND t.completed_at >= {_SINCE} AND {_TENANT.format("t")}
    ORDER BY t.completed_at DESC, t.task_id {_LIMIT}
) AS t
LEFT JOIN LATERAL (
    SELECT step_number, action FROM execution_logs
    WHERE task_id = t.task_id AND tenant_id = t.tenant_id AND status = 'failed'
    ORDER BY step_number DESC, timestamp DESC LIMIT 1
) AS l ON true
ORDER BY t.completed_at DESC, t.task_id""",  # noqa: S608 (constant text)
    {"days": 7, "limit": 100},
    ("ix_tasks_status", "ix_execution_logs_task_id_step_number"),
)

TASK_TIMELINE = Report(
    "task-timeline",
    "What happened to a task, event by event and step by step, in the order of time",
    f"""
SELECT time, kind, what, step, status, attempt, duration_ms, source, detail FROM (
    SELECT e.time, 'event' AS kind, e.type AS what, NULL::int AS step, NULL::text AS status, e.attempt,
        NULL::bigint AS duration_ms, e.source,
        coalesce(e.data->>'error_message', e.data->>'reason', e.data->>'request_text') AS detail
    FROM lifecycle_events e
    WHERE e.entity_type = 'task' AND e.entity_id = CAST(:task AS uuid)::text AND {_TENANT.format("e")}
    UNION ALL
    SELECT l.timestamp, 'step', l.agent_type || ': ' || l.action, l.step_number, l.status, NULL,
        l.duration_ms, l.source, l.output_summary
    FROM execution_logs l
    WHERE l.task_id = CAST(:task AS uuid) AND {_TENANT.format("l")}
) AS happened
ORDER BY time, kind, step {_LIMIT}""",  # noqa: S608 (as above)
    {"task": None, "limit": 1000},
    (
        "ix_lifecycle_events_entity_type_entity_id_time",
        "ix_execution_logs_task_id_step_number",
    ),
)

TASK_RESOURCES = Report(
    "task-resources",
    "What tasks used, beside what was expected, and their logged steps; the latest first",
    f"""
SELECT t.created_at, t.task_id, t.tenant_id, t.type, t.agent_id, t.status, t.estimated_resources,
    t.actual_resources, t.duration_ms, l.steps, l.step_ms
FROM (
    SELECT * FROM tasks t
    WHERE t.created_at >= {_SINCE} AND t.actual_resources IS NOT NULL AND {_TENANT.format("t")}
    ORDER BY t.created_at DESC, t.task_id {_LIMIT}
) AS t
CROSS JOIN LATERAL (
    SELECT count(*) AS steps, sum(duration_ms)::bigint AS step_ms FROM execution_logs
    WHERE task_id = t.task_id AND tenant_id = t.tenant_id
) AS l
ORDER BY t.created_at DESC, t.task_id""",  # noqa: S608 (as above)
    {"days": 30, "limit": 100},
    ("ix_tasks_created_at", "ix_execution_logs_task_id_step_number"),
)

EXTERNAL_AI_TASKS = Report(
    "external-ai-tasks",
    "Tasks that used an external AI, the latest first",
    f"""
SELECT t.created_at, t.task_id, t.tenant_id, t.type, t.agent_id, t.status,
    t.external_ai_used->>'model' AS model, {_number("tokens")} AS tokens, {_number("cost")} AS cost
FROM tasks t
WHERE t.created_at >= {_SINCE} AND t.external_ai_used IS NOT NULL AND {_TENANT.format("t")}
ORDER BY t.created_at DESC, t.task_id {_LIMIT}""",  # noqa: S608 (as above)
    {"days": 30, "limit": 100},
    ("ix_tasks_created_at",),
)

# Grouped twice: over a million steps, four plain aggregates of each row cost two thirds of six with filters.
AGENT_TYPES = Report(
    "agent-types",
    "Average metrics of each type of agent, from its steps",
    f"""
SELECT agent_type, sum(steps)::bigint AS steps,
    coalesce(sum(steps) FILTER (WHERE status = 'completed'), 0)::bigint AS completed,
    coalesce(sum(steps) FILTER (WHERE status = 'failed'), 0)::bigint AS failed,
    round(coalesce(sum(steps) FILTER (WHERE status = 'completed'), 0)
        / nullif(sum(steps) FILTER (WHERE status IN ('completed', 'failed')), 0), 4) AS success_rate,
    round(sum(ms) / nullif(sum(timed), 0), 1) AS average_ms, max(longest) AS longest_ms
FROM (
    SELECT l.agent_type, l.status, count(*) AS steps, count(l.duration_ms) AS timed,
        sum(l.duration_ms) AS ms, max(l.duration_ms) AS longest
    FROM execution_logs l
    WHERE l.timestamp >= {_SINCE} AND {_TENANT.format("l")}
    GROUP BY l.agent_type, l.status
) AS by_status
GROUP BY agent_type ORDER BY steps DESC, agent_type {_LIMIT}""",  # noqa: S608 (as above)
    {"days": 30, "limit": 100},
    ("ix_execution_logs_timestamp",),
)

FAILED_STEPS = Report(
    "failed-steps",
    "Steps that failed, the latest first",
    f"""
SELECT l.timestamp AS failed_at, l.task_id, l.tenant_id, l.step_number, l.agent_type, l.action,
    l.duration_ms, l.output_summary
FROM execution_logs l
WHERE l.status = 'failed' AND l.timestamp >= {_SINCE} AND {_TENANT.format("l")}
ORDER BY l.timestamp DESC, l.log_id {_LIMIT}""",  # noqa: S608 (as above)
    {"days": 7, "limit": 100},
    ("ix_execution_logs_failed",),
)

TASKS_BY_STATUS = Report(
    "tasks-by-status",
    "How many tasks are in each status",
    f"""
SELECT t.status, count(*) AS tasks, min(t.created_at) AS oldest, max(t.created_at) AS newest,
    round(avg(t.duration_ms)) AS average_ms
FROM tasks t
WHERE NOT t.placeholder AND t.created_at >= {_SINCE} AND {_TENANT.format("t")}
GROUP BY t.status ORDER BY tasks DESC, t.status""",  # noqa: S608 (as above)
    {"days": 3650},
    ("ix_tasks_created_at",),
)

AI_COST = Report(
    "ai-cost",
    "What each external model cost",
    f"""
SELECT coalesce(t.external_ai_used->>'model', 'unknown') AS model, count(*) AS tasks,
    sum({_number("tokens")}) AS tokens, sum({_number("cost")}) AS cost,
    round(avg({_number("cost")}), 6) AS average_cost
FROM tasks t
WHERE t.created_at >= {_SINCE} AND t.external_ai_used IS NOT NULL AND {_TENANT.format("t")}
GROUP BY 1 ORDER BY cost DESC NULLS LAST, model {_LIMIT}""",  # noqa: S608 (as above)
    {"days": 30, "limit": 100},
    ("ix_tasks_created_at",),
)

LONGEST_TASKS = Report(
    "longest-tasks",
    "The tasks that ran longest, those that still run included",
    f"""
SELECT t.task_id, t.tenant_id, t.type, t.agent_id, t.status, t.started_at, t.completed_at,
    round(extract(epoch FROM coalesce(t.completed_at, now()) - t.started_at), 3) AS seconds
FROM tasks t
WHERE t.started_at IS NOT NULL AND t.created_at >= {_SINCE} AND {_TENANT.format("t")}
    AND (t.completed_at IS NOT NULL OR t.status = 'executing')
ORDER BY seconds DESC, t.task_id {_LIMIT}""",  # noqa: S608 (as above)
    {"days": 30, "limit": 20},
    ("ix_tasks_created_at",),
)

SUCCESS_BY_DAY = Report(
    "success-by-day",
    "Of the tasks that ended on a day, how many were completed; the latest day first",
    f"""
SELECT (t.completed_at AT TIME ZONE 'UTC')::date AS day,
    count(*) FILTER (WHERE t.status = 'completed') AS completed,
    count(*) FILTER (WHERE t.status = 'failed') AS failed,
    round(count(*) FILTER (WHERE t.status = 'completed')::numeric / count(*), 4) AS success_rate
FROM tasks t
WHERE t.status IN ('completed', 'failed') AND {_TENANT.format("t")} AND t.completed_at >=
    date_trunc('day', now(), 'UTC') - make_interval(days => CAST(:days AS int) - 1)
GROUP BY 1 ORDER BY 1 DESC""",  # noqa: S608 (as above)
    {"days": 30},
    ("ix_tasks_status",),
)

REPORTS = {
    report.name: report
    for report in (
        FAILED_TASKS,
        TASK_TIMELINE,
        TASK_RESOURCES,
        EXTERNAL_AI_TASKS,
        AGENT_TYPES,
        FAILED_STEPS,
        TASKS_BY_STATUS,
        AI_COST,
        LONGEST_TASKS,
        SUCCESS_BY_DAY,
    )
}
"""Every report by name, in the order of the design."""
