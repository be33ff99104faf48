"""A way to PostgreSQL that cuts connections in the middle of a COMMIT: before the server has heard it, or after it has done it."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from worker.settings import Settings

Cut = Literal["unheard", "unanswered"]

_COMMIT = b"Q\x00\x00\x00\x0cCOMMIT;\x00"
"""COMMIT as asyncpg sends it: a simple query."""
_AT_START = 4
"""How many are let pass first: a worker that cannot even look at the database when it starts gives up in time."""


@dataclass
class Commits:
    """Whose turn it is to be cut; `choose` is asked at each COMMIT."""

    settings: Settings
    """The given settings, by way of here."""
    chances: random.Random
    share: float
    counts: dict[Cut, int] = field(default_factory=lambda: {"unheard": 0, "unanswered": 0})
    passed: int = 0

    def choose(self) -> Cut | None:
        if self.passed < _AT_START or self.chances.random() >= self.share:
            self.passed += 1
            return None
        cut: Cut = self.chances.choice(("unheard", "unanswered"))
        self.counts[cut] += 1
        return cut


@asynccontextmanager
async def cut_commits(settings: Settings, seed: int, share: float) -> AsyncIterator[Commits]:
    """A way to the database of these settings, over which this share of all COMMITs is cut, half of them after the fact."""
    place = urlsplit(settings.database)
    relays: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        relays.add(task)
        try:
            server = await asyncio.open_connection(place.hostname, place.port)
            await _Relay(commits, (reader, writer), server).run()
        finally:
            writer.close()
            relays.discard(task)

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    login = place.netloc.rpartition("@")[0]
    netloc = f"{login}@127.0.0.1:{port}" if login else f"127.0.0.1:{port}"
    url = SecretStr(urlunsplit(place._replace(netloc=netloc)))
    detour = settings.model_copy(update={"database_url": url})
    detour.__dict__.pop("database", None)  # the address that it remembers
    commits = Commits(detour, random.Random(seed), share)
    try:
        yield commits
    finally:
        listener.close()
        for task in list(relays):
            task.cancel()
        await asyncio.gather(*relays, return_exceptions=True)


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Relay:
    """One connection, both ways. What is cut is closed on both sides at once, without a word of PostgreSQL's protocol."""

    def __init__(self, commits: Commits, client: _Streams, server: _Streams) -> None:
        self._commits = commits
        self._client = client
        self._server = server
        self._deaf = False

    async def run(self) -> None:
        directions = {asyncio.create_task(self._forward()), asyncio.create_task(self._back())}
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            self._server[1].close()
            self._client[1].close()

    async def _forward(self) -> None:
        with suppress(OSError):
            while data := await self._client[0].read(1 << 16):
                if data.endswith(_COMMIT):  # asyncpg waits for its answer: nothing stands behind it
                    match self._commits.choose():
                        case "unheard":
                            return
                        case "unanswered":
                            self._deaf = True
                self._server[1].write(data)
                await self._server[1].drain()

    async def _back(self) -> None:
        with suppress(OSError):
            while data := await self._server[0].read(1 << 16):
                if self._deaf:
                    return
                self._client[1].write(data)
                await self._client[1].drain()
