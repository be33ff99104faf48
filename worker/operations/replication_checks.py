"""The doctor's look at what a failover would do: standbys, what commits wait for, and how far behind they are.

The columns of pg_stat_replication are shown to a member of pg_monitor; what cannot be seen is said.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.operations.findings import Finding, mend, note, ok

_LAG_BYTES = 256 * 1024 * 1024
_GRANT = "GRANT pg_monitor to the role with which you run 'worker doctor'."


@dataclass(frozen=True)
class Standby:
    """One server that follows this one; None for what this role may not see."""

    name: str
    state: str | None
    sync_state: str | None
    behind_bytes: int | None


@dataclass(frozen=True)
class Replication:
    """What commits wait for, and who follows."""

    synchronous_commit: str
    standby_names: str
    standbys: tuple[Standby, ...] = ()


async def examine(connection: AsyncConnection) -> list[Finding]:
    """Every finding about the standbys of this server."""
    return judge(await _read(connection))


async def _read(connection: AsyncConnection) -> Replication:
    settings = (
        await connection.execute(
            sa.text(
                "SELECT current_setting('synchronous_commit') AS synchronous_commit,"
                " current_setting('synchronous_standby_names') AS standby_names"
            )
        )
    ).one()
    rows = await connection.execute(
        sa.text(
            "SELECT coalesce(nullif(application_name, ''), 'a standby') AS name, state, sync_state,"
            " CASE WHEN pg_is_in_recovery() THEN NULL"
            " ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint END AS behind_bytes"
            " FROM pg_stat_replication WHERE coalesce(state, '') <> 'backup' ORDER BY 1"
        )
    )
    standbys = tuple(Standby(*row) for row in rows)
    return Replication(settings.synchronous_commit, settings.standby_names, standbys)


def judge(replication: Replication) -> list[Finding]:
    """Whether a failover keeps what was confirmed, whether commits can end, and whether a standby is far behind."""
    hidden = any(one.state is None for one in replication.standbys)
    if hidden:
        return [note("standbys", "this role may not see the state of the standbys", _GRANT)]
    return [_failover(replication), *_behind(replication.standbys)]


def _failover(replication: Replication) -> Finding:
    names, waits = replication.standby_names.strip(), replication.synchronous_commit
    synchronous = [one for one in replication.standbys if one.sync_state in ("sync", "quorum")]
    if names and waits in ("local", "off"):
        return note(
            "standbys",
            f"synchronous_standby_names is set, but synchronous_commit is {waits} for this role: nothing waits for a standby, "
            "and a failover may lose what was confirmed",
            "Set synchronous_commit to on; look for it in ALTER ROLE and ALTER DATABASE.",
        )
    if names and not synchronous:
        return mend(
            "standbys",
            f"commits wait for the standbys of synchronous_standby_names ({names}), and none of them is connected",
            "Start the standby, or take it out of synchronous_standby_names; until then nothing is stored, and nothing is lost.",
        )
    if names:
        listed = ", ".join(one.name for one in synchronous)
        return ok("standbys", f"commits wait for {listed}: a failover keeps what was confirmed")
    if replication.standbys:
        return note(
            "standbys",
            f"{len(replication.standbys)} standbys follow asynchronously: a failover may lose the last commits, "
            "and with them rows that were confirmed",
            "Name them in synchronous_standby_names if that matters.",
        )
    return ok("standbys", "no standby follows this server")


def _behind(standbys: Sequence[Standby]) -> list[Finding]:
    far = [one for one in standbys if (one.behind_bytes or 0) > _LAG_BYTES]
    return [
        note(
            "replica lag",
            f"{one.name} is {(one.behind_bytes or 0) // 1024**2} MiB behind",
            "Look at its disk and network, and for long queries on it; readers there see old rows.",
        )
        for one in far
    ]
