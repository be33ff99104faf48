"""Opening the services for an operation, and closing them after it.

Promises one sentence that names the place, without secrets, where a service cannot be reached.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from contracts.registry import ContractFamily
from worker import families
from worker.broker import topology
from worker.broker.connection import BrokerConnection, connect
from worker.errors import Misconfigured
from worker.patience import patiently
from worker.settings import Settings
from worker.store.database import Database
from worker.store.migrations import missing


@asynccontextmanager
async def open_database(settings: Settings, *, wait: float = 0) -> AsyncIterator[Database]:
    """A database that answers. Raises Unavailable where it does not within `wait` seconds."""
    database = Database(
        settings.database,
        name=f"{settings.name} operator",
        pool_size=2,
        statement_timeout=settings.statement_timeout,
    )
    try:
        await patiently(wait, database.check)
        yield database
    finally:
        await database.close()


_LONG = 3600.0


def patient(settings: Settings) -> Settings:
    """Settings for an operation whose statements look at whole tables: these may take an hour."""
    longest = max(settings.statement_timeout, _LONG)
    return settings.model_copy(update={"statement_timeout": longest})


async def require_migrations(database: Database, settings: Settings) -> None:
    """Raises Misconfigured where the database lacks a migration that this version needs."""
    async with database.connection() as connection:
        absent = await missing(connection, families.required_revisions())
    if absent:
        raise Misconfigured(
            f"the database at {settings.database_place} lacks migrations {', '.join(sorted(absent))}: "
            "run 'alembic upgrade head'"
        )


@asynccontextmanager
async def open_broker(settings: Settings, *, wait: float = 0) -> AsyncIterator[BrokerConnection]:
    """A connection to the broker. Raises Unavailable or Misconfigured where there is none within `wait` seconds."""
    connection = await patiently(
        wait, lambda: connect(settings.broker, name=f"{settings.name} operator")
    )
    try:
        yield connection
    finally:
        await connection.close()


def all_contracts() -> list[ContractFamily]:
    """The contracts of every family."""
    return [family.contract for family in families.families().values()]


def whole_topology() -> topology.Topology:
    """What all families need in the broker."""
    return topology.topology(all_contracts())
