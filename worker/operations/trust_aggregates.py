"""Measurements of trust as daily aggregates: made in the transaction that drops the measurements.

Promises that each measurement is counted once: one that comes late joins the aggregate of its day.
"""

from collections.abc import Sequence
from typing import Any

import asyncpg

_AGGREGATE = """
INSERT INTO trust_metrics_daily AS d (session_id, metric_type, day, tenant_id,
    measurements, minimum, maximum, total, last_value, last_measured_at)
SELECT session_id, metric_type, (created_at AT TIME ZONE 'UTC')::date, tenant_id,
    count(*), min(metric_value), max(metric_value), sum(metric_value),
    (array_agg(metric_value ORDER BY created_at DESC, metric_id DESC))[1], max(created_at)
FROM trust_metrics WHERE ctid = ANY($1::tid[])
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4
ON CONFLICT (session_id, metric_type, day, tenant_id) DO UPDATE SET
    measurements = d.measurements + excluded.measurements,
    minimum = least(d.minimum, excluded.minimum),
    maximum = greatest(d.maximum, excluded.maximum),
    total = d.total + excluded.total,
    last_value = CASE WHEN excluded.last_measured_at >= d.last_measured_at
        THEN excluded.last_value ELSE d.last_value END,
    last_measured_at = greatest(d.last_measured_at, excluded.last_measured_at)"""


async def aggregate(connection: asyncpg.Connection, places: Sequence[Any]) -> None:
    """Count the measurements at these places into their days, in the open transaction that deletes them."""
    await connection.execute(_AGGREGATE, places)
