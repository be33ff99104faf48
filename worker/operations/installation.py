"""Setting the two services up: migrations in the database, exchanges and queues in the broker.

Promises that both can be run at any time, again and beside running workers, and say what they changed.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from alembic.util import CommandError

from worker.broker import topology
from worker.broker.topology import Exchange, Queue, Topology
from worker.errors import Misconfigured
from worker.operations.services import open_broker, open_database, whole_topology
from worker.settings import Settings
from worker.store import migrations
from worker.store.database import Database, translate
from worker.store.operational import schema_versions


@dataclass(frozen=True)
class Migration:
    """A migration that the database has."""

    version: str
    description: str


async def migrate(settings: Settings) -> list[Migration]:
    """Bring the database up to date; the migrations that were missing, oldest first."""
    async with open_database(settings, wait=settings.start_timeout) as database:
        before = await _applied(database)
        try:
            await asyncio.to_thread(migrations.upgrade, settings.database)
        except CommandError as error:
            raise Misconfigured(
                f"the migrations of this version do not fit the database at {settings.database_place}: {error}"
            ) from error
        except Exception as error:
            raise translate(error) from error
        after = await _applied(database)
    return [migration for migration in after if migration not in before]


async def _applied(database: Database) -> list[Migration]:
    async with database.connection() as connection:
        if not await migrations.applied_versions(connection):
            return []
        rows = await connection.execute(
            sa.select(schema_versions.c.version, schema_versions.c.description).order_by(
                schema_versions.c.version
            )
        )
        return [Migration(version, description) for version, description in rows]


@dataclass(frozen=True)
class Part:
    """An exchange or queue as it has to be, and what is wrong with it."""

    kind: str
    name: str
    type: str
    bound_to: str | None
    routing_keys: tuple[str, ...]
    arguments: dict[str, Any]
    problem: str | None


async def apply_topology(settings: Settings) -> list[str]:
    """Declare what is missing; the names of what was new. Raises Misconfigured, with nothing changed, where something differs."""
    async with open_broker(settings, wait=settings.start_timeout) as connection:
        return await topology.apply(connection, whole_topology())


async def show_topology(settings: Settings) -> list[Part]:
    """Every exchange and queue that the worker needs, compared with what there is."""
    wanted = whole_topology()
    parts: list[Part] = []
    async with open_broker(settings) as connection:
        for exchange in wanted.exchanges:
            problems = await topology.check(connection, Topology((exchange,), ()))
            parts.append(_part(exchange, problems))
        for queue in wanted.queues:
            problems = await topology.check(connection, Topology((), (queue,)))
            parts.append(_part(queue, problems))
    return parts


def _part(part: Exchange | Queue, problems: list[str]) -> Part:
    problem = _short(problems[0], part.name) if problems else None
    if isinstance(part, Exchange):
        return Part("exchange", part.name, part.type, None, (), part.arguments, problem)
    arguments = dict(part.arguments)
    kind = str(arguments.pop("x-queue-type"))
    return Part("queue", part.name, kind, part.exchange, part.routing_keys, arguments, problem)


def _short(problem: str, name: str) -> str:
    """The problem of a part, beside whose name it stands."""
    return problem.partition(f"{name} ")[2].removeprefix("is ") or problem
