"""The tables as the code declares them, and month bounds: what can be known without a database."""

import ast
import pkgutil
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

import worker.families
from contracts.identifiers import uuid7
from worker.store import migrations
from worker.store.ddl import compress_sql, first_partitions_sql
from worker.store.partitions import (
    Month,
    is_partition,
    key_column,
    months_from,
    partitioned_tables,
)
from worker.store.schema import Kind, metadata, tables_of_kind

HIGH_VOLUME = {
    "lifecycle_events",
    "execution_logs",
    "trajectories",
    "conversation_history",
    "agent_audit_log",
    "metrics",
    "workflow_metrics",
    "cost_records",
}
moments = st.datetimes(datetime(1970, 2, 1), datetime(9998, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


def messages_tables():
    return [*tables_of_kind(Kind.FACT), *tables_of_kind(Kind.ENTITY)]


def test_every_table_says_its_kind():
    """No table is left without a kind, so that none escapes the rules of its kind."""
    assert worker.families
    assert {t.name for t in metadata.sorted_tables if "kind" not in t.info} == set()


def test_keys_hold_the_tenant_last():
    """Every primary and foreign key of a message's table ends in the tenant, the id first."""
    for table in messages_tables():
        keys = [[c.name for c in table.primary_key]]
        keys += [key.column_keys for key in table.foreign_key_constraints]
        keys += [[e.column.name for e in key.elements] for key in table.foreign_key_constraints]
        assert all(key[-1] == "tenant_id" and len(key) >= 2 for key in keys), table.name
        assert not table.c.tenant_id.nullable, table.name
        assert not table.c.created_at.nullable, table.name


def test_foreign_keys_say_on_delete():
    """No foreign key leaves to chance what becomes of its rows."""
    keys = [key for table in metadata.sorted_tables for key in table.foreign_key_constraints]
    assert keys
    assert [key.name for key in keys if not key.ondelete] == []


def test_entities_name_themselves():
    """Each entity has a name of its own in lifecycle_events."""
    names = [table.info["entity_type"] for table in tables_of_kind(Kind.ENTITY)]
    assert {"task", "training_job"} <= set(names)
    assert len(names) == len(set(names))


def test_high_volume_facts_are_partitioned_by_their_key():
    """The tables of the page that grow without end are partitioned, each by the first column of its key."""
    assert {table.name for table in partitioned_tables()} == HIGH_VOLUME & set(metadata.tables)
    for table in partitioned_tables():
        by = table.dialect_options["postgresql"]["partition_by"]
        assert by == f"RANGE ({key_column(table)})"
        assert table.info["time_column"] in table.c


def test_families_need_migrations_that_exist():
    """Each family names a revision that stands in the folder of migrations."""
    found = {
        path.name.partition("_")[0] for path in (migrations.scripts() / "versions").glob("*.py")
    }
    for family in pkgutil.iter_modules(worker.families.__path__):
        assert getattr(worker.families, family.name).REVISION in found


def test_migrations_import_nothing_that_changes():
    """A migration is frozen history: of the worker it imports the frozen statements only."""
    allowed = {"alembic", "worker.store.ddl"}
    for path in (migrations.scripts() / "versions").glob("*.py"):
        tree = ast.parse(path.read_text())
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert imported <= allowed, path
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import)]


def test_statements_of_migrations_are_frozen():
    """They name the table that they are for, and need no connection."""
    assert "ALTER TABLE things " in compress_sql("things")
    assert "'things_y'" in first_partitions_sql("things")


@given(moments)
def test_a_key_lies_in_the_month_of_its_time(moment):
    """A UUIDv7 made at a moment lies within the bounds of that moment's month in UTC, and in no other."""
    key = uuid7((moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1))
    month = Month.of(moment)
    first, end = month.bounds
    assert first <= key < end
    assert month.plus(1).bounds[0] == end
    assert month.plus(-1).bounds[1] == first


def test_months_are_those_of_utc():
    """A moment late on the last evening of a month in New York is in the next month."""
    new_york = timezone(timedelta(hours=-5))
    assert Month.of(datetime(2026, 12, 31, 22, tzinfo=new_york)) == Month(2027, 1)
    assert Month(2027, 1).first_key == UUID("01a2ce8b-d400-0000-0000-000000000000")


def test_months_cross_the_year():
    """Twelve months after November 2026 ends in November 2027."""
    months = list(months_from(datetime(2026, 11, 21, tzinfo=UTC), 12))
    assert (months[0], months[2], months[-1], len(months)) == (
        Month(2026, 11),
        Month(2027, 1),
        Month(2027, 11),
        13,
    )
    assert months[2].partition_of("metrics") == "metrics_y2027m01"


@pytest.mark.parametrize(
    ("name", "partition"),
    [
        ("execution_logs_y2026m11", True),
        ("execution_logs_y2026m11_retiring", True),
        ("execution_logs_default", True),
        ("execution_logs", False),
        ("tasks_y2026m11", False),
        ("tasks_default", False),
    ],
)
def test_partitions_are_known_by_name(name, partition):
    """Only partitions of partitioned tables are left out of what Alembic compares."""
    assert is_partition(name) is partition


@pytest.mark.parametrize(
    ("given_url", "expected"),
    [
        ("postgresql://u:p@h:1/d", "postgresql+asyncpg://u:p@h:1/d"),
        ("postgres://h/d", "postgresql+asyncpg://h/d"),
        ("postgresql+asyncpg://h/d?ssl=require", "postgresql+asyncpg://h/d?ssl=require"),
        ("postgresql://h/d?sslmode=require", "postgresql+asyncpg://h/d?ssl=require"),
    ],
)
def test_addresses_are_accepted_in_every_spelling(given_url, expected):
    """A libpq address works as it is: the driver is asyncpg, sslmode is understood."""
    assert migrations.asyncpg_url(given_url).render_as_string(hide_password=False) == expected


def test_another_database_is_refused_without_its_password():
    """An address of another database is refused, and the message hides the password."""
    with pytest.raises(ValueError, match="not a PostgreSQL address") as error:
        migrations.asyncpg_url("mysql://me:secret@h/d")
    assert "secret" not in str(error.value)


def test_scripts_are_found_beside_the_package():
    """In a checkout the migrations stand in alembic/."""
    assert migrations.scripts() == Path(migrations.__file__).parents[2] / "alembic"
