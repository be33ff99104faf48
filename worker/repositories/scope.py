"""Whose rows a repository sees: one tenant's and, where a table belongs to sessions, one session's.

Promises that every statement of a repository carries the scope as a condition of its own, whatever row-level security
the database has beside it. A table says in `info["session_column"]` that its rows belong to sessions.
"""

from dataclasses import dataclass
from uuid import UUID

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError

from contracts.fields import Tenant
from worker.repositories.errors import BadQuery

_TENANT: TypeAdapter[str] = TypeAdapter(Tenant)


@dataclass(frozen=True)
class Scope:
    """A tenant, and a session where the tables belong to sessions; `every_session` is for operators of the tenant."""

    tenant: str
    session: UUID | None = None
    every_session: bool = False

    def __post_init__(self) -> None:
        """Raises BadQuery for a tenant that no message could have."""
        try:
            _TENANT.validate_python(self.tenant, strict=True)
        except ValidationError:
            raise BadQuery(f"the tenant {self.tenant!r} is none: see Tenant in contracts") from None

    def conditions(self, table: sa.Table) -> list[sa.ColumnElement[bool]]:
        """What a row must fulfil to be seen. Raises BadQuery where a table of sessions is asked for without one."""
        found: list[sa.ColumnElement[bool]] = [table.c.tenant_id == self.tenant]
        column = session_column(table)
        if column is None:
            return found
        if self.session is not None:
            found.append(column == self.session)
        elif not self.every_session:
            raise BadQuery(
                f"{table.name} belongs to sessions: give Scope a session, or every_session=True"
            )
        return found


def session_column(table: sa.Table) -> sa.Column[UUID] | None:
    """The column that says which session a row belongs to, if the table belongs to sessions."""
    name = table.info.get("session_column")
    return None if name is None else table.c[name]


def scope_columns(table: sa.Table) -> frozenset[str]:
    """The columns that the scope decides; nobody filters by them."""
    name = table.info.get("session_column")
    return frozenset({"tenant_id"} if name is None else {"tenant_id", name})
