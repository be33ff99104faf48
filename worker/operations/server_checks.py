"""The doctor's look at the PostgreSQL server: can the worker write, and is safe what it wrote.

One query reads what the server is set to; judging it is apart and pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.operations.findings import Finding, mend, note, ok
from worker.store.schema import Kind, metadata

_OLDEST_VERSION = 15
_SKEW_NOTED = timedelta(seconds=2)
_SKEW_MENDED = timedelta(seconds=30)
_CONNECTIONS_OF_A_WORKER = 14


@dataclass(frozen=True)
class Server:
    """What the server says about itself, and this session."""

    version: str
    version_number: int
    role: str
    read_only: bool
    synchronous_commit: str
    fsync: str
    full_page_writes: str
    lz4: bool
    connections: int
    max_connections: int
    role_connections: int
    role_limit: int | None
    isolation: str
    skew: timedelta


async def examine(connection: AsyncConnection) -> list[Finding]:
    """Every finding about the server and this session, whatever is in the database."""
    return judge_server(await read_server(connection))


async def read_server(connection: AsyncConnection) -> Server:
    """Ask the server; the clock is compared with the middle of the question."""
    before = datetime.now(UTC)
    row = (
        await connection.execute(
            sa.text(
                "SELECT clock_timestamp() AS clock, current_setting('server_version') AS version,"
                " current_setting('server_version_num')::int AS version_number, current_user::text AS role,"
                " pg_is_in_recovery() OR current_setting('transaction_read_only')::bool AS read_only,"
                " current_setting('synchronous_commit') AS synchronous_commit, current_setting('fsync') AS fsync,"
                " current_setting('full_page_writes') AS full_page_writes,"
                " current_setting('max_connections')::int AS max_connections,"
                " (SELECT count(*) FROM pg_stat_activity WHERE usename = current_user)::int AS role_connections,"
                " LEAST((SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),"
                " (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database())) AS role_limit,"
                " current_setting('default_transaction_isolation') AS isolation,"
                " (SELECT sum(numbackends) FROM pg_stat_database)::int AS connections,"
                " (SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression') AS lz4"
            )
        )
    ).one()
    after = datetime.now(UTC)
    middle = before + (after - before) / 2
    doubt = (after - before) / 2
    skew = max(abs(row.clock - middle) - doubt, timedelta(0))
    values = {name: value for name, value in row._mapping.items() if name != "clock"}  # noqa: SLF001 (SQLAlchemy's public name)
    return Server(**values, skew=skew)


def judge_server(server: Server) -> list[Finding]:
    """Version, writing, durability, clock, connections."""
    findings = [ok("database", f"PostgreSQL {server.version} answers, as role {server.role}")]
    if server.version_number < _OLDEST_VERSION * 10_000:
        findings = [
            mend(
                "database",
                f"PostgreSQL {server.version} is too old",
                f"Move to PostgreSQL {_OLDEST_VERSION} or later.",
            )
        ]
    if server.read_only:
        findings.append(
            mend(
                "writing",
                "this server takes no writes: it is a standby, or read-only by setting",
                "Let DATABASE_URL name the primary.",
            )
        )
    findings += [_durability(server), _clock(server.skew), _connections(server)]
    if server.isolation != "read committed":
        findings.append(
            note(
                "isolation",
                f"default_transaction_isolation is {server.isolation} for this role: transactions fail and are tried again more often",
                "Set it to 'read committed', for which the worker is made; look in ALTER ROLE and ALTER DATABASE.",
            )
        )
    if not server.lz4:
        findings.append(
            note(
                "compression",
                "this server was built without lz4: large values are compressed with pglz, slower and less",
                "Nothing needs doing; a server built with lz4 saves disk.",
            )
        )
    return findings


def _durability(server: Server) -> Finding:
    wrong = [
        f"{name} is off"
        for name in ("fsync", "full_page_writes", "synchronous_commit")
        if getattr(server, name) == "off"
    ]
    if wrong:
        return mend(
            "durability",
            f"{', '.join(wrong)}: a message confirmed as persisted can be lost in a crash",
            "Set it to on in postgresql.conf, and look for it in ALTER ROLE or ALTER DATABASE; "
            "for trials WORKER_ALLOW_UNSAFE_DATABASE=true lets a worker run all the same.",
        )
    return ok("durability", f"fsync on, synchronous_commit {server.synchronous_commit}")


def _clock(skew: timedelta) -> Finding:
    text = f"the clocks of the database and this machine differ by {skew.total_seconds():.1f} s"
    if skew < _SKEW_NOTED:
        return ok("clock", "the clocks of the database and this machine agree")
    remedy = "Keep both in time with NTP; times and partitions follow the clocks."
    return note("clock", text, remedy) if skew < _SKEW_MENDED else mend("clock", text, remedy)


def _connections(server: Server) -> Finding:
    free = server.max_connections - server.connections
    text = f"{server.connections} of {server.max_connections} connections are in use"
    if server.role_limit is not None:
        free = min(free, server.role_limit - server.role_connections)
        text += f"; role {server.role} or its database may have {server.role_limit}"
    if free < _CONNECTIONS_OF_A_WORKER:
        return note(
            "connections",
            text,
            f"A worker process opens up to {_CONNECTIONS_OF_A_WORKER}: raise max_connections (or the CONNECTION LIMIT of the role or database), or run fewer processes.",
        )
    return ok("connections", text)


_PRIVILEGES = {
    Kind.FACT: ("SELECT", "INSERT"),
    Kind.ENTITY: ("SELECT", "INSERT", "UPDATE"),
    Kind.ACCOUNT: (),
}
_OPERATIONAL_PRIVILEGES = {
    "outbox": ("SELECT", "INSERT", "DELETE"),
    "dead_letters": ("SELECT", "INSERT", "UPDATE"),
    "suspects": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "loss_ledger": ("SELECT", "INSERT"),
    "schema_versions": ("SELECT",),
    "tenant_roles": (),
}


async def examine_privileges(connection: AsyncConnection) -> Finding:
    """Whether this role may do to the tables, all of which are there, what the worker does."""
    wanted = [
        (table.name, privilege)
        for table in metadata.sorted_tables
        for privilege in _privileges(table)
    ]
    rows = await connection.execute(
        sa.text(
            "SELECT p || ' on ' || t FROM unnest(CAST(:tables AS text[]), CAST(:privileges AS text[])) AS u(t, p)"
            " WHERE NOT has_table_privilege(t, p) ORDER BY t, p"
        ),
        {"tables": [table for table, _ in wanted], "privileges": [p for _, p in wanted]},
    )
    role = await connection.scalar(sa.text("SELECT current_user::text"))
    return judge_privileges(str(role), [str(row[0]) for row in rows])


def _privileges(table: sa.Table) -> Sequence[str]:
    """What the worker does to a table."""
    if table.info["kind"] == Kind.OPERATIONAL:
        return _OPERATIONAL_PRIVILEGES.get(table.name, ("SELECT",))
    return _PRIVILEGES[table.info["kind"]]


def judge_privileges(role: str, missing: Sequence[str]) -> Finding:
    """Whether the role may do what the worker does."""
    if missing:
        return mend(
            "privileges",
            f"role {role} lacks {', '.join(missing)}",
            f"GRANT worker_writer TO {role}; if that is so already, as the owner of the tables: SELECT secure_tables().",
        )
    return ok("privileges", f"role {role} may read and write every table")
