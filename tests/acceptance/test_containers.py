"""A worker between a PostgreSQL and a RabbitMQ in containers, as testcontainers starts them."""

import asyncio
import signal

import pytest
from support.broker import client, new_topology
from support.engine import needs_engine
from support.events import created, logged
from support.ledger import Ledger
from support.workers import worker_process

from contracts.identifiers import uuid7
from worker.sandbox import Sandbox
from worker.settings import Settings
from worker.store.migrations import upgrade

pytestmark = [*needs_engine, pytest.mark.timeout(600)]

TASKS = 20
ENTRIES = 10


@pytest.fixture(scope="module")
def services():
    """Both in containers, whatever else this machine has."""
    with Sandbox(postgres="docker", rabbitmq="docker", say=lambda line: None) as sandbox:
        yield sandbox


async def publish(agent, ledger):
    """Tasks and their log entries, each confirmed by the broker and then by the worker."""
    for _ in range(TASKS):
        task = uuid7()
        await ledger.publish(agent, [created(task), *(logged(task) for _ in range(ENTRIES))])
    await ledger.hear(agent)


async def test_all_that_is_published_is_stored_though_both_containers_are_killed(services):
    """A kill and a start of each in between costs nothing, on either side of the worker."""
    postgres, rabbitmq = services.postgres, services.rabbitmq
    assert (postgres.kind, rabbitmq.kind) == ("docker", "docker")
    await asyncio.to_thread(upgrade, services.database_url)
    await new_topology(services.amqp_url)
    settings = Settings.load(
        database_url=services.database_url,
        amqp_url=services.amqp_url,
        http_port=0,
        retry_longest=0.5,
        outbox_sweep_after=1.0,
        log_level="warning",
    )
    ledger = Ledger()
    async with worker_process(settings) as worker:
        async with client(services.amqp_url) as agent:
            await publish(agent, ledger)
        for service in (postgres, rabbitmq):
            await asyncio.to_thread(service.kill)
            await asyncio.to_thread(service.start)
        async with client(services.amqp_url) as agent:
            await publish(agent, ledger)
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0
    assert len(ledger.published) == 2 * TASKS * (1 + ENTRIES)
    assert set(ledger.outcomes) == {"persisted"}  # some twice: confirmed at least once
    await ledger.balance(services.database_url)
