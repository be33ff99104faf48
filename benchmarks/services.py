"""The broker and the database of a benchmark, and a fresh place in both for every run.

Prefers an installed PostgreSQL (the embedded one has no lz4, see docs). Owns the server's parameters, which docs/performance.md
names: fsync and synchronous commits stay on.
"""

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import asyncpg

from benchmarks import cpu
from benchmarks.backlog import Broker
from worker.sandbox import Sandbox
from worker.sandbox.service import Service
from worker.store.migrations import upgrade

POSTGRES_SETTINGS = {
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "track_commit_timestamp": "on",  # tells when the last row became visible, without asking while it runs
    "autovacuum_naptime": "1h",
    "max_connections": "200",
}
_CHOICE = "local,install,wheel"
_QUIET = 0.05
"""Share of a core below which the broker counts as at rest."""


@dataclass
class Place:
    """A migrated database and a virtual host of their own for one run."""

    database_url: str
    amqp_url: str
    broker: Broker
    database: asyncpg.Connection

    @property
    def dsn(self) -> str:
        """The database's address as libpq and asyncpg take it."""
        return self.database_url.replace("+asyncpg", "")


class Services:
    """Both services, started once for all rounds."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._numbers = itertools.count()
        self._template = f"bench_template_{os.getpid()}"
        upgrade(sandbox.postgres.create(self._template))

    @classmethod
    @contextlib.contextmanager
    def started(cls) -> Iterator["Services"]:
        """Start both, and stop them at the end."""
        postgres = os.environ.get("WORKER_SANDBOX_POSTGRES", _CHOICE)
        rabbitmq = os.environ.get("WORKER_SANDBOX_RABBITMQ", "local,install,docker")
        with Sandbox(postgres, rabbitmq, postgres_settings=POSTGRES_SETTINGS) as sandbox:
            yield cls(sandbox)

    @property
    def pids(self) -> dict[str, int | None]:
        """The process ids of both servers, where they run as processes of ours."""
        return {"broker": _pid(self.sandbox.rabbitmq), "database": _pid(self.sandbox.postgres)}

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """A fresh database and virtual host, dropped at the end."""
        name = f"bench_{os.getpid()}_{next(self._numbers)}"
        postgres, rabbitmq = self.sandbox.postgres, self.sandbox.rabbitmq
        database_url = await asyncio.to_thread(postgres.create, name, template=self._template)
        amqp_url = await asyncio.to_thread(rabbitmq.create, name)
        try:
            async with await Broker.open(amqp_url) as broker:
                database = await asyncpg.connect(database_url.replace("+asyncpg", ""))
                try:
                    yield Place(database_url, amqp_url, broker, database)
                finally:
                    await database.close()
        finally:
            await asyncio.to_thread(rabbitmq.drop, name)
            await asyncio.to_thread(postgres.drop, name)

    async def settle(self, place: Place, longest: float = 8.0) -> None:
        """Wait until what publishing left behind is done: dirty pages written, the broker at rest."""
        await place.database.execute("CHECKPOINT")
        broker = self.pids["broker"]
        deadline = time.monotonic() + longest
        while broker is not None and time.monotonic() < deadline:
            before = cpu.tree_seconds(broker)
            await asyncio.sleep(0.25)
            if cpu.tree_seconds(broker) - before <= _QUIET * 0.25:
                return


def _pid(service: Service) -> int | None:
    return getattr(service.lifecycle, "pid", None)
