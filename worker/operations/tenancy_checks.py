"""The doctor's look at tenancy: whether row-level security stands between tenants, and who goes past it.

One query reads the catalogue; judging what it says is apart and pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.operations.findings import Finding, mend, note, ok

ROLES = ("worker_writer", "worker_reader", "worker_operator")
"""The group roles of migration 0009."""

_SECURE = "as the owner of the tables: SELECT secure_tables();"
_SHOWN = 5

_TABLES = """
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')"""

_LOOK = f"""
SELECT current_user::text AS role,
    ARRAY(SELECT r FROM unnest(CAST(:roles AS text[])) AS r WHERE to_regrole(r) IS NULL) AS absent,
    ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname = ANY (CAST(:roles AS text[]))
        AND (rolcanlogin OR rolsuper OR rolbypassrls)) AS loose,
    ARRAY(SELECT c.relname::text {_TABLES} AND NOT (c.relrowsecurity AND c.relforcerowsecurity) ORDER BY 1) AS open,
    ARRAY(SELECT c.relname::text {_TABLES} AND c.relrowsecurity AND NOT EXISTS (
        SELECT FROM pg_policy WHERE polrelid = c.oid AND polname = 'owner' AND c.relowner = ANY (polroles))
        ORDER BY 1) AS unowned,
    ARRAY(SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace
        AND c.relkind = 'v' AND NOT coalesce('security_invoker=true' = ANY (c.reloptions), false)
        AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND deptype = 'e')
        ORDER BY 1) AS lending,
    (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user) AS unbound,
    coalesce(pg_has_role(to_regrole('worker_writer'), 'USAGE'), false)
        OR coalesce(pg_has_role((SELECT relowner FROM pg_class WHERE oid = to_regclass('tasks')), 'USAGE'), false)
        AS writer,
    coalesce(pg_has_role(to_regrole('worker_operator'), 'USAGE'), false) AS operator,
    ARRAY(SELECT r.rolname::text FROM pg_roles r WHERE r.rolcanlogin AND (r.rolsuper OR r.rolbypassrls)
        AND EXISTS (SELECT FROM pg_auth_members WHERE roleid = to_regrole('worker_reader') AND member = r.oid)
        ORDER BY 1) AS unbound_readers,
    has_schema_privilege('public', current_schema()::text, 'CREATE') AS shared
"""  # noqa: S608 (constants of this file)


@dataclass(frozen=True)
class Tenancy:
    """What the catalogue says."""

    role: str
    absent: Sequence[str] = ()
    """Group roles that there are not."""
    loose: Sequence[str] = ()
    """Group roles that may log in, or go past row-level security."""
    open: Sequence[str] = ()
    """Tables of tenants without row-level security, or of which their owner is free."""
    unowned: Sequence[str] = ()
    """Tables whose policies are for another owner than they have."""
    lending: Sequence[str] = ()
    """Views that lend their reader the rights of their owner."""
    unbound: bool = False
    """Whether this role goes past row-level security."""
    writer: bool = True
    operator: bool = False
    unbound_readers: Sequence[str] = ()
    shared: bool = False
    """Whether anybody may make objects in the schema."""


async def examine(connection: AsyncConnection) -> list[Finding]:
    """Every finding about tenancy."""
    found = (await connection.execute(sa.text(_LOOK), {"roles": list(ROLES)})).one()
    return judge(Tenancy(**found._mapping))  # noqa: SLF001 (SQLAlchemy's public name)


def judge(tenancy: Tenancy) -> list[Finding]:
    """What stands between tenants, and what does not."""
    if tenancy.absent:
        made = " ".join(f"CREATE ROLE {role};" for role in tenancy.absent)
        return [
            mend(
                "tenancy",
                f"row-level security is off: there is no role {_listed(tenancy.absent)}",
                f"As a superuser: {made} then GRANT worker_writer to the role of the workers, and {_SECURE}",
            )
        ]
    findings = []
    if tenancy.open:
        findings.append(
            mend(
                "tenancy",
                f"no row-level security on {_listed(tenancy.open)}: a role with a grant reads every tenant's rows",
                f"Run {_SECURE}",
            )
        )
    if tenancy.unowned:
        findings.append(
            mend(
                "tenancy",
                f"the owner of {_listed(tenancy.unowned)} has changed, and sees none of the rows",
                f"Run {_SECURE}",
            )
        )
    if tenancy.lending:
        findings.append(
            mend(
                "tenancy",
                f"views that show every tenant's rows to whoever may read them: {_listed(tenancy.lending)}",
                "ALTER VIEW … SET (security_invoker = true).",
            )
        )
    if tenancy.loose:
        findings.append(
            mend(
                "tenancy",
                f"{_listed(tenancy.loose)} may log in, or goes past row-level security",
                "ALTER ROLE … NOLOGIN NOSUPERUSER NOBYPASSRLS: these are groups, with login roles as members.",
            )
        )
    if not (tenancy.writer or tenancy.operator or tenancy.unbound):
        findings.append(
            mend(
                "tenancy",
                f"role {tenancy.role} is no member of worker_writer: it sees no row and can store none",
                f"As a superuser: GRANT worker_writer TO {tenancy.role};",
            )
        )
    if tenancy.unbound_readers:
        findings.append(
            mend(
                "tenancy",
                f"{_listed(tenancy.unbound_readers)} is a reader that row-level security does not bind",
                "ALTER ROLE … NOSUPERUSER NOBYPASSRLS.",
            )
        )
    if tenancy.unbound:
        findings.append(
            note(
                "tenancy",
                f"role {tenancy.role} is a superuser or has BYPASSRLS: row-level security does not bind it",
                "Nothing is wrong for trials; else let the worker log in as a member of worker_writer.",
            )
        )
    if tenancy.shared:
        findings.append(
            note(
                "tenancy",
                "anybody may make tables and functions beside the worker's, as in databases of before PostgreSQL 15",
                "As the schema's owner: REVOKE CREATE ON SCHEMA public FROM PUBLIC.",
            )
        )
    return findings or [ok("tenancy", "row-level security stands between tenants on every table")]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
