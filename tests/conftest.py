"""Fixtures: one throw-away broker and database for the whole run, a database of its own and clean queues for each test."""

import asyncio
import gc
import itertools
import os
import random
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings
from support.broker import clean_topology
from support.workers import Running, running_worker

from worker.sandbox import Postgres, RabbitMQ, Sandbox
from worker.settings import Settings

_numbers = itertools.count()
_ENOUGH_MEMORY = 4 * 1024**3

# A person waits for `make unit`, CI does not: there hypothesis tries its full hundred examples a property.
hypothesis_settings.register_profile("quick", max_examples=10, deadline=None)
hypothesis_settings.register_profile("thorough", max_examples=100, deadline=None)
hypothesis_settings.load_profile("thorough" if os.environ.get("CI") else "quick")


gc.disable()  # until all is loaded: none of it is ever garbage, and looking takes a second


def pytest_collection_finish() -> None:
    """From here on, tests make garbage."""
    gc.freeze()
    gc.enable()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--seed N` repeats the random faults of an earlier run."""
    parser.addoption("--seed", type=int, default=None, help="seed of the tests with random faults")


@pytest.fixture
def chances(request) -> random.Random:
    """Chance, and how to have it again: a failing test shows the seed."""
    given = request.config.getoption("--seed")
    seed = random.SystemRandom().randrange(2**32) if given is None else given
    print(f"again with: --seed {seed}")  # noqa: T201 (pytest shows it where the test fails)
    return random.Random(seed)


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """A broker and a database, started once; it says which it chose.

    Without fsync: tests kill the server, never the machine, and a hundred databases are made and dropped.
    """
    quick = {"fsync": "off", "full_page_writes": "off", "max_connections": "300"}
    os.environ["WORKER_ALLOW_UNSAFE_DATABASE"] = "true"  # workers refuse such a server otherwise
    with Sandbox(
        say=lambda text: print(text, file=sys.__stderr__),
        within=_memory(),
        postgres_settings=quick,
    ) as sandbox:
        yield sandbox


def _memory() -> Path | None:
    """A folder in memory, where there is one with room: each test copies a database of two thousand files."""
    memory = Path("/dev/shm")
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ENOUGH_MEMORY
    return memory if roomy else None


@pytest.fixture(scope="session")
def postgres(sandbox) -> Postgres:
    return sandbox.postgres


@pytest.fixture(scope="session")
def rabbitmq(sandbox) -> RabbitMQ:
    return sandbox.rabbitmq


@pytest.fixture(scope="session")
def _template(postgres) -> str:
    """The name of a migrated database that others are cloned from."""
    from worker.store.migrations import upgrade

    name = f"template_{os.getpid()}"
    upgrade(postgres.create(name))
    return name


@pytest.fixture
def database_url(postgres, _template) -> Iterator[str]:
    """A fresh migrated database."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    yield postgres.create(name, template=_template)
    postgres.drop(name)


@pytest.fixture
def empty_database_url(postgres) -> Iterator[str]:
    """A fresh database that was never migrated."""
    name = f"empty_{os.getpid()}_{next(_numbers)}"
    yield postgres.create(name)
    postgres.drop(name)


@pytest.fixture
def amqp_url(sandbox) -> str:
    """A virtual host whose topology is new: no message of another test is in it."""
    asyncio.run(clean_topology(sandbox.amqp_url))
    return sandbox.amqp_url


@pytest.fixture
def settings(database_url, amqp_url) -> Settings:
    """Settings for a worker of this test."""
    return Settings.load(
        database_url=database_url,
        amqp_url=amqp_url,
        name="test-worker",
        http_port=0,
        retry_longest=0.5,
        start_timeout=20,
        log_level="warning",
    )


@pytest.fixture
async def worker(settings) -> AsyncIterator[Running]:
    """A worker of all families in this process."""
    async with running_worker(settings) as running:
        yield running
