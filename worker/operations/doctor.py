"""What is wrong, and how to mend it: every check of the settings, the database, the broker and a worker nearby.

Looks only: nothing is changed. A check that cannot be made is itself a finding.
"""

from worker.errors import Misconfigured, WorkerError
from worker.operations import broker_checks, database_checks, management_checks, worker_checks
from worker.operations.findings import Finding, Level, mend, ok
from worker.operations.services import open_broker, open_database
from worker.settings import Settings


async def examine() -> list[Finding]:
    """All findings, in the order in which they should be mended."""
    try:
        settings = Settings.load()
    except Misconfigured as error:
        remedy = "Set it in the environment of the worker; 'worker run --help' lists all settings."
        return [mend("settings", str(error), remedy)]
    findings = [
        ok("settings", f"database {settings.database_place}, broker {settings.broker_place}")
    ]
    findings += await _database(settings)
    findings += await _broker(settings)
    findings += await worker_checks.examine(settings)
    return findings


def must_be_mended(findings: list[Finding]) -> bool:
    """Whether anything is worse than a note."""
    return any(finding.level is Level.MEND for finding in findings)


async def _database(settings: Settings) -> list[Finding]:
    try:
        async with open_database(settings) as database:
            return await database_checks.examine(database, settings)
    except WorkerError as error:
        remedy = "Check DATABASE_URL (host, port, user, password, database) and that PostgreSQL runs and lets this machine in."
        return [mend("database", str(error), remedy)]


async def _broker(settings: Settings) -> list[Finding]:
    try:
        async with open_broker(settings) as connection:
            findings = await broker_checks.examine(connection)
        return findings + await management_checks.examine(settings)
    except WorkerError as error:
        remedy = "Check AMQP_URL (host, port, user, password, virtual host) and that RabbitMQ runs and lets this machine in."
        return [mend("broker", str(error), remedy)]
