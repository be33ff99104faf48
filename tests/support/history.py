"""What agents did, as events with times counted back from now: figures that can be computed by hand."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from contracts import Event
from contracts.envelope import EventData
from support.events import created, decoded, logged
from worker.families import plan
from worker.store.database import Database
from worker.store.persist import Persister
from worker.store.writer import Writer


def at(event: Event, **ago: float) -> Event:
    """The event, so long ago: at(event, days=2)."""
    return event.model_copy(update={"time": datetime.now(UTC) - timedelta(**ago)})


def task(task_id: UUID, *, tenant: str = "default", ago: dict[str, float], **data: Any) -> Event:
    return at(created(task_id, tenant=tenant, **data), **ago)


def step(task_id: UUID, *, tenant: str = "default", ago: dict[str, float], **data: Any) -> Event:
    return at(logged(task_id, tenant=tenant, **data), **ago)


def change(data: EventData, *, tenant: str = "default", **ago: float) -> Event:
    return at(data.event(source="/agents/tester", tenant=tenant), **ago)


async def persist(url: str, *events: Event) -> list[str]:
    """Store these as messages; their outcomes."""
    database = Database(url, name="test")
    try:
        persister = Persister(database, Writer(plan()), "task-lifecycle", "agent.replies.*")
        outcomes = (await persister.persist(decoded(*events))).outcomes
    finally:
        await database.close()
    return [getattr(one, "outcome", "rejected") for one in outcomes]
