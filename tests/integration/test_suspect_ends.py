"""An attempt to handle a suspect alone that ends for another reason is not held against the message."""

import pytest
from support.broker import client
from support.events import logged
from support.tables import count, rows
from support.workers import drain

from worker.app import App
from worker.batch import Batcher
from worker.errors import Misconfigured


async def test_a_restart_loop_over_a_missing_grant_makes_no_dead_letter(settings, monkeypatch):
    """Six starts that each stop with Misconfigured; mended, all messages land."""
    # As if every delivery had been handed out often before: the first of a process is handled alone.
    monkeypatch.setattr(Batcher, "is_suspect", lambda _, batch: len(batch) == 1)
    monkeypatch.setattr(Batcher, "_share", lambda _, delivery: 1)
    await rows(settings.database, "ALTER TABLE outbox RENAME COLUMN payload TO gone")
    async with client(settings.broker) as agent:
        await agent.publish(*(logged() for _ in range(3)))
        for _ in range(6):
            with pytest.raises(Misconfigured):
                await drain(settings)
        assert await count(settings.database, "suspects") == 0
        await rows(settings.database, "ALTER TABLE outbox RENAME COLUMN gone TO payload")
        await drain(settings)
        assert len((await agent.confirmed(3))["persisted"]) == 3
    assert await count(settings.database, "dead_letters") == 0


async def test_a_relay_that_may_not_read_the_outbox_stops_the_worker_with_a_sentence(settings):
    """Whichever task finds it, what is missing ends the worker as Misconfigured, not as a group of exceptions."""
    await rows(settings.database, "ALTER TABLE outbox RENAME COLUMN payload TO gone")
    with pytest.raises(Misconfigured, match="payload"):
        await App(settings).run()
