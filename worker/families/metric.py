"""Figures of the platform: the table of the family `metric`."""

from sqlalchemy import Column, Double, Index, PrimaryKeyConstraint, String, Table, text

from contracts import metric as contract
from worker.store.declaration import Fact, Family
from worker.store.schema import (
    Kind,
    fact_columns,
    json_column,
    key_column,
    metadata,
    tenant_column,
    timestamp_column,
)

REVISION = "0008"
"""The migration that this table needs."""

metrics = Table(
    "metrics",
    metadata,
    key_column("metric_id"),
    tenant_column(),
    Column("name", String(200), nullable=False),
    Column("value", Double, nullable=False),
    json_column("tags"),
    json_column("metadata"),
    timestamp_column("timestamp", nullable=False),
    *fact_columns(),
    PrimaryKeyConstraint("id", "tenant_id"),
    Index("ix_metrics_name_timestamp", "name", text("timestamp DESC")),
    Index(None, "tags", postgresql_using="gin"),
    postgresql_partition_by="RANGE (id)",
    info={"kind": Kind.FACT, "time_column": "timestamp"},
)
"""One row a figure."""

FAMILY = Family(
    contract=contract.FAMILY,
    tables=(Fact("metric.recorded", metrics, event_time=("timestamp",)),),
    revision=REVISION,
)
