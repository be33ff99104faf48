"""What `worker run` refuses: a set-up in which a message that was confirmed could be lost.

The doctor says the same, and more; here is only what would break a promise without anybody noticing.
"""

from worker.errors import Misconfigured, Unavailable
from worker.operations import server_checks
from worker.operations.findings import Finding, Level
from worker.patience import patiently
from worker.settings import Settings
from worker.store.database import Database


async def refuse_unsafe(database: Database, settings: Settings, wait: float) -> None:
    """Raises Misconfigured, with the remedy, where this database would not keep what is committed to it.

    A server that takes no writes may be promoted within `wait` seconds: a failover is under way, perhaps.
    """

    async def look() -> list[Finding]:
        async with database.connection() as connection:
            server = await server_checks.read_server(connection)
        wrong = {
            one.check: one for one in server_checks.judge_server(server) if one.level is Level.MEND
        }
        if settings.allow_unsafe_database:
            wrong.pop("durability", None)
        if "writing" in wrong:
            raise _TakesNoWrites(_told(wrong["writing"]))
        return [wrong[check] for check in ("database", "durability") if check in wrong]

    try:
        found = await patiently(wait, look)
    except _TakesNoWrites as error:
        raise Misconfigured(f"the database at {settings.database_place}: {error}") from error
    if found:
        told = " ".join(map(_told, found))
        raise Misconfigured(f"the database at {settings.database_place} is not safe: {told}")


class _TakesNoWrites(Unavailable):
    """Not now: perhaps it is promoted in a moment."""


def _told(finding: Finding) -> str:
    return f"{finding.what}. {finding.remedy}"
