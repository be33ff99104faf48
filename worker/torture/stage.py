"""What a torture run plays on: the two services, workers with a network of their own, and what may be done to them."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from worker.settings import Settings
from worker.torture.crew import Place
from worker.torture.ground import Ground
from worker.torture.proxy import Proxy

Charge = Callable[[str, str], None]

_WORKER_SETTINGS = {
    "WORKER_OUTBOX_SWEEP_AFTER": "5",  # what a killed worker had yet to confirm comes soon
    "WORKER_START_TIMEOUT": "120",  # the database may be down when a worker starts
    "WORKER_LOG_LEVEL": "warning",
    "WORKER_FAMILIES": "",
    "WORKER_REPLY_QUEUES": "agent.replies.*",
}
_NOT_THROUGH_A_PROXY = {"ssl", "sslmode", "host"}


class Stage:
    """Services and workers of one run; in an `async with` block the proxies listen, and no worker outlives it."""

    def __init__(
        self, ground: Ground, settings: Settings, workers: int, folder: Path, charge: Charge
    ) -> None:
        self.ground = ground
        self.settings = settings
        environment = {
            **_WORKER_SETTINGS,
            "DATABASE_URL": settings.database,
            "AMQP_URL": settings.broker,
        }
        self.places = [
            Place(f"torture-worker-{number}", environment, folder, charge)
            for number in range(1, workers + 1)
        ]
        self.last = Place("torture-drain", environment, folder, charge)
        self._closing = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        for place in self.places:
            self._closing.push_async_callback(place.close)
            place.broker = await self._proxy(self.settings.broker, 5672)
            place.database = await self._proxy(self.settings.database, 5432)
            if place.broker is not None:
                place.environment["AMQP_URL"] = place.broker.url(self.settings.broker)
            if place.database is not None:
                place.environment["DATABASE_URL"] = place.database.url(self.settings.database)
        self._closing.push_async_callback(self.last.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._closing.aclose()

    @property
    def plain_database_url(self) -> str:
        """The database's URL as the driver reads it."""
        return self.settings.database.replace("+asyncpg", "")

    @property
    def targets(self) -> set[str]:
        """What faults can be done to here."""
        found = {"worker"}
        place = self.places[0]
        found |= {"broker network"} if place.broker is not None else set()
        found |= {"database network"} if place.database is not None else set()
        found |= {"broker"} if self.ground.rabbitmq is not None else set()
        found |= {"database"} if self.ground.postgres is not None else set()
        return found

    async def _proxy(self, url: str, default_port: int) -> Proxy | None:
        """A proxy before a service; None where a client would notice: it checks certificates, or knows several hosts."""
        parts = urlsplit(url)
        asked = {name for name, _ in parse_qsl(parts.query)}
        if parts.scheme == "amqps" or asked & _NOT_THROUGH_A_PROXY:
            return None
        proxy = Proxy(parts.hostname or "localhost", parts.port or default_port)
        return await self._closing.enter_async_context(proxy)
