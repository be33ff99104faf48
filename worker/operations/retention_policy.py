"""How long rows are kept: for each table an age up to which they are active, and one up to which their archive is.

Owns the setting WORKER_RETENTION and its defaults, those of the data model. Promises that a wrong entry is refused by
name with what would be right, and that the audit log is never kept for less than three years.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import sqlalchemy as sa

from worker.errors import Misconfigured
from worker.operations.audit_verify import KEPT_AT_LEAST
from worker.store.partitions import Month
from worker.store.schema import Kind, metadata

SETTING = "WORKER_RETENTION"
DEFAULTS = "conversation_history=90d/1y,agent_decisions=6m/2y,agent_audit_log=3y/keep,trust_metrics=30d/none"
"""What holds for tables that the setting does not name; all others are kept."""

AGGREGATED = "trust_metrics"
"""The table whose rows become daily aggregates instead of an archive."""

_AGE = re.compile(r"([1-9]\d{0,3})([dmy])")
_FORM = (
    "write table=active/archive, such as execution_logs=1y/3y; active is an age (90d, 6m, 1y), archive an age counted"
    " from the same time, keep (without end) or none (dropped without an archive); table=keep keeps all"
)
_DAYS: Mapping[str, int] = {"d": 1, "m": 30, "y": 365}


@dataclass(frozen=True)
class Age:
    """A number of days, calendar months or years."""

    count: int
    unit: Literal["d", "m", "y"]

    def before(self, moment: datetime) -> datetime:
        """The moment so long before."""
        if self.unit == "d":
            return moment - timedelta(days=self.count)
        months = self.count * (12 if self.unit == "y" else 1)
        month = Month.of(moment).plus(-months)
        last = (month.plus(1).start - timedelta(days=1)).day
        return moment.replace(year=month.year, month=month.number, day=min(moment.day, last))

    @property
    def days(self) -> int:
        """About how many days, to compare two."""
        return self.count * _DAYS[self.unit]

    def __str__(self) -> str:
        return f"{self.count}{self.unit}"


@dataclass(frozen=True)
class Policy:
    """How long the rows of a table are kept."""

    active: Age | None = None
    """How long they stay in the table; None: always."""

    archived: bool = False
    """Whether they go into an archive then."""

    until: Age | None = None
    """Up to which age of the rows the archive is kept; None: always."""

    def __str__(self) -> str:
        if self.active is None:
            return "keep"
        return f"{self.active}/{(self.until or 'keep') if self.archived else 'none'}"


def time_column(table: sa.Table) -> str:
    """The column that says how old a row is."""
    return str(table.info.get("time_column", "created_at"))


def retirable_tables() -> list[sa.Table]:
    """Tables of messages whose rows nothing else belongs to; of the others rows go by erasure only."""
    owners = {
        key.referred_table.name
        for table in metadata.sorted_tables
        for key in table.foreign_key_constraints
    }
    return [
        table
        for table in metadata.sorted_tables
        if table.info["kind"] in (Kind.FACT, Kind.ENTITY) and table.name not in owners
    ]


def policies(setting: str) -> dict[str, Policy]:
    """The policy of every table whose rows can be retired. Raises Misconfigured for a wrong entry."""
    known = {table.name: Policy() for table in retirable_tables()}
    for text in (DEFAULTS, setting):
        known |= _entries(text, known)
    return known


def _entries(text: str, known: Mapping[str, Policy]) -> dict[str, Policy]:
    found: dict[str, Policy] = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        name, _, value = entry.partition("=")
        if name not in known:
            raise _wrong(entry, _why_unknown(name, known))
        if name in found:
            raise _wrong(entry, f"{name} is named twice: keep one of the two")
        found[name] = _checked(name, entry, _policy(entry, value))
    return found


def _policy(entry: str, value: str) -> Policy:
    if value == "keep":
        return Policy()
    active, _, archive = value.partition("/")
    first = _age(active)
    until = _age(archive)
    if first is None or (until is None and archive not in ("keep", "none")):
        raise _wrong(entry, _FORM)
    return Policy(first, archived=archive != "none", until=until)


def _checked(name: str, entry: str, policy: Policy) -> Policy:
    if policy.active is None:
        return policy
    if name == "agent_audit_log" and policy.active.days < KEPT_AT_LEAST.days:
        raise _wrong(entry, "the audit log is kept for three years at least: write 3y or more")
    if name == AGGREGATED and policy.archived:
        raise _wrong(entry, f"{name} becomes daily aggregates: write {name}={policy.active}/none")
    if policy.until is not None and policy.until.days < policy.active.days:
        raise _wrong(
            entry, "the archive would end before it begins: its age counts from the same time"
        )
    return policy


def _age(text: str) -> Age | None:
    found = _AGE.fullmatch(text)
    return Age(int(found[1]), found[2]) if found else None  # type: ignore[arg-type]


def _why_unknown(name: str, known: Mapping[str, Policy]) -> str:
    if name in metadata.tables:
        return f"rows of {name} cannot be retired, since others belong to them or the worker needs them; {_those(known)}"
    return f"there is no table {name!r}; {_those(known)}"


def _those(known: Mapping[str, Policy]) -> str:
    return f"these can: {', '.join(sorted(known))}"


def _wrong(entry: str, why: str) -> Misconfigured:
    return Misconfigured(f"{SETTING}: {entry!r}: {why}")
