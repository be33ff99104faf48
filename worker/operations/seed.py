"""Seeding a database: events through the statements that messages take, in one transaction, safe to run twice.

Promises that development and test data get into no database that looks like production unless somebody insists.
"""

import re
from collections import Counter
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import Event
from worker import families
from worker.errors import Misconfigured
from worker.message import Accepted
from worker.operations.seed_events import SEEDS, SOURCE
from worker.operations.services import require_migrations
from worker.patience import patiently
from worker.repositories.errors import Refused
from worker.repositories.scope import Scope
from worker.repositories.service import DatabaseService
from worker.repositories.writing import store
from worker.settings import Settings
from worker.store.database import Database
from worker.store.schema import Kind, tables_of_kind

HARMLESS = frozenset({"prod"})
"""Seeds that belong into production."""

_PRODUCTION = re.compile(r"(?<![a-z])(prod|production|live)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Seeded:
    """What was stored."""

    seed: str
    tenant: str
    events: int
    stored: int
    """Events that were not there before."""
    tables: dict[str, int]
    """Of how many of all events each table tells."""
    left_out: list[str]
    """Examples that contradict others, and why."""


async def seed(settings: Settings, name: str, *, tenant: str, force: bool = False) -> Seeded:
    """Store a seed for a tenant. Raises Misconfigured for an unknown one, or where the database looks like production."""
    if name not in SEEDS:
        raise Misconfigured(f"{name!r} is no seed; there are: {', '.join(SEEDS)}")
    scope = Scope(tenant, every_session=True)
    async with DatabaseService(settings) as service:
        await patiently(settings.start_timeout, service.database.check)
        await require_migrations(service.database, settings)
        if name not in HARMLESS and not force:
            await _refuse_production(service.database, settings)
        async with service.transaction(scope) as work:
            wanted = SEEDS[name](tenant)
            accepted = await store(work.connection, wanted.events, tenant)
            examples, left_out = await _store_examples(work.connection, wanted.examples, tenant)
    accepted += examples
    stored = sum(one.fresh for one in accepted)
    return Seeded(name, tenant, len(accepted), stored, _by_table(accepted), left_out)


async def _store_examples(
    connection: AsyncConnection, events: list[Event], tenant: str
) -> tuple[list[Accepted], list[str]]:
    """Store each by itself; those that contradict an earlier one (two may show one key) are left out, and named."""
    accepted: list[Accepted] = []
    left_out = []
    for event in events:
        try:
            async with connection.begin_nested():
                accepted += await store(connection, [event], tenant)
        except Refused as refused:
            left_out.append(f"{event.type} {event.id}: {refused}")
    return accepted, left_out


async def _refuse_production(database: Database, settings: Settings) -> None:
    """Raises Misconfigured, with the reason and the way out."""
    place = settings.database_place
    why = f"its address {place} says so" if _PRODUCTION.search(place) else None
    if why is None:
        async with database.connection() as connection:
            why = await _foreign_data(connection)
    if why is not None:
        raise Misconfigured(
            f"the database looks like production ({why}): seed another one, or insist with --force"
        )


async def _foreign_data(connection: AsyncConnection) -> str | None:
    """Which table holds what no seed has stored; None where all is of seeds."""
    for table in tables_of_kind(Kind.FACT):
        foreign = sa.select(table.c.source).where(~table.c.source.startswith(SOURCE)).limit(1)
        source = (await connection.execute(foreign)).scalar_one_or_none()
        if source is not None:
            return f"{table.name} holds what {source} has published"
    return None


def _by_table(accepted: list[Accepted]) -> dict[str, int]:
    plan = families.plan()
    tables: Counter[str] = Counter()
    for one in accepted:
        name = one.message.type
        tables[str((plan.facts.get(name) or plan.entities[name]).table.name)] += 1
    return dict(sorted(tables.items()))
