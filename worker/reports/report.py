"""A report: a documented question, its query, and what it can be asked with.

Promises that values are bound and never written into SQL, that a report reads only, and that a mistake names what
would be right.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from worker.errors import Misconfigured
from worker.store.database import Database

MOST_ROWS = 100_000
MOST_DAYS = 36_500


@dataclass(frozen=True)
class Report:
    """One question. `defaults` are the parameters that it takes, beside the tenant; None means that one must be given."""

    name: str
    title: str
    sql: str
    defaults: Mapping[str, Any]
    indexes: tuple[str, ...] = ()
    """The indexes that its plan rests on, once tables are large; a test asks the planner."""

    def parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every parameter with its value. Raises Misconfigured for one that it does not take, or that is missing or wrong."""
        chosen = {name: value for name, value in given.items() if value is not None}
        for name in chosen:
            if name not in (*self.defaults, "tenant"):
                raise Misconfigured(
                    f"the report {self.name} takes no {name}; it takes: {', '.join((*self.defaults, 'tenant'))}"
                )
        values = {"tenant": None, **self.defaults, **chosen}
        for name in self.defaults:
            if values[name] is None:
                raise Misconfigured(f"the report {self.name} needs --{name}")
        _check(values, "days", MOST_DAYS)
        _check(values, "limit", MOST_ROWS)
        if "task" in values:
            values["task"] = _uuid(values["task"])
        return values


@dataclass(frozen=True)
class Answer:
    """What a report found."""

    report: Report
    parameters: dict[str, Any]
    columns: list[str]
    rows: list[tuple[Any, ...]]


async def run(database: Database, report: Report, given: Mapping[str, Any]) -> Answer:
    """Ask. Raises Misconfigured, and Unavailable where the database is away."""
    parameters = report.parameters(given)
    async with database.connection() as connection:
        await connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        found = await connection.execute(sa.text(report.sql), parameters)
        return Answer(report, parameters, list(found.keys()), [tuple(row) for row in found])


def _check(values: Mapping[str, Any], name: str, most: int) -> None:
    value = values.get(name)
    if value is not None and not 1 <= value <= most:
        raise Misconfigured(f"--{name} must be 1 to {most:,}, not {value:,}")


def _uuid(text: Any) -> UUID:
    try:
        return UUID(str(text))
    except ValueError:
        raise Misconfigured(f"--task {text!r} is no UUID") from None
