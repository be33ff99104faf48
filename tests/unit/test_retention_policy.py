"""How long rows are kept: the setting, its defaults, and what is refused."""

from datetime import UTC, datetime

import pytest

import worker.families
from worker.errors import Misconfigured
from worker.operations.retention_policy import Age, policies
from worker.store.partitions import partitioned_tables


def test_the_defaults_are_those_of_the_data_model():
    """Conversations 90 days and a year, decisions six months and two years, the audit log three years, trust 30 days."""
    assert worker.families
    limited = {name: str(one) for name, one in policies("").items() if one.active}
    assert limited == {
        "conversation_history": "90d/1y",
        "agent_decisions": "6m/2y",
        "agent_audit_log": "3y/keep",
        "trust_metrics": "30d/none",
    }
    assert {table.name for table in partitioned_tables()} <= set(policies(""))


def test_a_setting_changes_the_tables_that_it_names():
    """The others keep their defaults; spaces do not matter."""
    chosen = policies(" execution_logs=1y/none, conversation_history=keep ,agent_audit_log=5y/10y,")
    assert str(chosen["execution_logs"]) == "1y/none"
    assert str(chosen["conversation_history"]) == "keep"
    assert str(chosen["agent_audit_log"]) == "5y/10y"
    assert str(chosen["agent_decisions"]) == "6m/2y"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("conversation_history", "write table=active/archive"),
        ("conversation_history=90", "write table=active/archive"),
        ("conversation_history=90d", "write table=active/archive"),
        ("conversation_history=0d/1y", "write table=active/archive"),
        ("conversation_history=90d/1w", "write table=active/archive"),
        ("conversation_history=90d/1y/2y", "write table=active/archive"),
        ("conversation_history=99999d/keep", "write table=active/archive"),
        ("conversation_history=1y/90d", "would end before it begins"),
        ("conversations=1y/2y", "there is no table 'conversations'; these can: agent_audit_log"),
        ("tasks=1y/2y", "rows of tasks cannot be retired"),
        ("outbox=1y/2y", "rows of outbox cannot be retired"),
        ("agent_audit_log=1094d/keep", "three years at least"),
        ("agent_audit_log=35m/keep", "three years at least"),
        ("agent_audit_log=2y/10y", "three years at least"),
        ("trust_metrics=30d/1y", "write trust_metrics=30d/none"),
        ("execution_logs=1y/none,execution_logs=2y/none", "named twice"),
    ],
)
def test_a_wrong_entry_is_refused_by_name(entry, said):
    """The setting, the entry, and what would be right."""
    with pytest.raises(Misconfigured, match="WORKER_RETENTION") as refused:
        policies(entry)
    assert said in str(refused.value)
    assert repr(entry.rpartition(",")[2]) in str(refused.value)


@pytest.mark.parametrize(
    ("age", "before"),
    [
        (Age(90, "d"), datetime(2026, 3, 2, 10, tzinfo=UTC)),
        (Age(3, "m"), datetime(2026, 2, 28, 10, tzinfo=UTC)),
        (Age(1, "y"), datetime(2025, 5, 31, 10, tzinfo=UTC)),
        (Age(17, "m"), datetime(2024, 12, 31, 10, tzinfo=UTC)),
    ],
)
def test_months_and_years_are_those_of_the_calendar(age, before):
    """The same day of an earlier month, or its last."""
    assert age.before(datetime(2026, 5, 31, 10, tzinfo=UTC)) == before
    assert str(age)[-1] in "dmy"
