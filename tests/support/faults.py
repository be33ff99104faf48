"""A worker that notices quickly what is wrong: settings and heartbeats for tests that break the network."""

from functools import partial

import pytest

from worker import app, attachment, relay
from worker.broker.connection import connect
from worker.settings import Settings


def by_way_of(settings: Settings, **given) -> Settings:
    """Settings with other addresses, and a database that is given up after a second of silence."""
    quick = {"outbox_sweep_after": 1.0, "statement_timeout": 1.0}
    # Not model_copy: that would keep the addresses that were read already.
    return Settings(**{**settings.model_dump(), **quick, **given})


@pytest.fixture
def short_heartbeats(monkeypatch):
    """A broker that is silent for a few seconds is noticed."""
    for module in (app, attachment, relay):
        monkeypatch.setattr(module, "connect", partial(connect, heartbeat=1))
