"""The database alone: how long its answers take, and how many messages a second it stores without broker and worker.

Promises that no process of it is left; the rows that it stores are named, so that they can be accounted for.
"""

import asyncio
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

from worker.bench.persisting import MISCONFIGURED, Made, Persisted
from worker.errors import Misconfigured, Unavailable
from worker.store.database import Database, translate

_ROUND_TRIPS = 100
_COMMITS = 50
_LONGEST_LINE = 64 * 1024 * 1024
_WARM_UP = 300
_SEED = 1_000


@dataclass(frozen=True)
class Answers:
    """How long one answer takes, the median in seconds: a statement that does nothing, and a commit that must be kept."""

    round_trip: float
    commit: float

    @property
    def flush(self) -> float:
        """What the commit took beyond its round trip: the flush of the WAL, and synchronous standbys."""
        return max(0.0, self.commit - self.round_trip)


@dataclass(frozen=True)
class DatabaseAlone:
    """What the processes did together. `client_busy`: the share of the time in which their own code ran."""

    messages: int
    seconds: float
    transactions: int
    in_flight: int
    client_busy: float
    decode_rate: float
    """Messages a second that one core decodes."""
    ids: tuple[UUID, ...]

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds


async def answers(database: Database) -> Answers:
    """Ask many times, one after the other. Raises Unavailable or Misconfigured."""
    try:
        async with database.engine.connect() as connection:
            raw = await connection.get_raw_connection()
            driver: Any = raw.driver_connection
            return Answers(
                await _median(driver, "SELECT 1", _ROUND_TRIPS),
                # Nothing but a record of the WAL, which its commit has to flush; it leaves nothing behind.
                await _median(
                    driver, "SELECT pg_logical_emit_message(true, 'worker bench', '')", _COMMITS
                ),
            )
    except (SQLAlchemyError, OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise translate(error) from error


async def _median(driver: Any, sql: str, times: int) -> float:
    taken = []
    for _ in range(times + 1):
        begin = time.perf_counter()
        await driver.fetchval(sql)
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken[1:])  # the first one prepares the statement


class DatabaseStage:
    """Processes that persist, one for each worker process."""

    def __init__(self, family: str, children: list[asyncio.subprocess.Process]) -> None:
        self._family = family
        self._children = children
        self._seed = _SEED

    @classmethod
    @asynccontextmanager
    async def open(
        cls, environment: Mapping[str, str], family: str, processes: int
    ) -> AsyncIterator["DatabaseStage"]:
        """The processes, until the end of the block."""
        async with contextlib.AsyncExitStack() as closing:
            children = []
            for _ in range(processes):
                child = await _start(environment)
                closing.push_async_callback(_end, child)
                children.append(child)
            yield cls(family, children)

    async def warm_up(self) -> tuple[UUID, ...]:
        """Open connections and prepare statements; the messages that this took."""
        return (await self.run(_WARM_UP * len(self._children))).ids

    async def run(self, count: int) -> DatabaseAlone:
        """Persist so many messages. Raises Unavailable or Misconfigured."""
        share, rest = divmod(count, len(self._children))
        shares = [share + (number < rest) for number in range(len(self._children))]
        made = await asyncio.gather(*map(self._make, self._children, shares))
        done = await asyncio.gather(*map(self._persist, self._children))
        seconds = max(one.end for one in done) - min(one.begin for one in done)
        decoding = sum(one.seconds for one in made)
        return DatabaseAlone(
            messages=count,
            seconds=seconds,
            transactions=sum(one.transactions for one in done),
            in_flight=sum(one.in_flight for one in done),
            client_busy=sum(one.cpu_seconds for one in done) / (seconds * len(done)),
            decode_rate=count / decoding if decoding else float("inf"),
            ids=tuple(UUID(key) for one in made for key in one.ids),
        )

    async def _make(self, child: asyncio.subprocess.Process, count: int) -> Made:
        self._seed += 1
        return Made(**await _ask(child, {"make": [self._family, count, self._seed]}))

    async def _persist(self, child: asyncio.subprocess.Process) -> Persisted:
        return Persisted(**await _ask(child, {"persist": []}))


async def _start(environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "worker.bench.persisting"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
        limit=_LONGEST_LINE,
        start_new_session=True,  # Ctrl-C is for us, who end it ourselves
    )


async def _ask(child: asyncio.subprocess.Process, question: dict[str, Any]) -> dict[str, Any]:
    """One question and its answer. Raises what the process ended with."""
    assert child.stdin is not None  # noqa: S101 (a pipe)
    assert child.stdout is not None  # noqa: S101 (as above)
    assert child.stderr is not None  # noqa: S101 (as above)
    with contextlib.suppress(ConnectionError):  # it has ended: what it said follows
        child.stdin.write(json.dumps(question).encode() + b"\n")
        await child.stdin.drain()
    line = await child.stdout.readline()
    if line:
        answer: dict[str, Any] = json.loads(line)
        return answer
    said = (await child.stderr.read()).decode(errors="replace").strip().splitlines()
    text = f"the database could not be measured: {said[-1] if said else 'its process ended'}"
    if await child.wait() == MISCONFIGURED:
        raise Misconfigured(text)
    raise Unavailable(text)


async def _end(child: asyncio.subprocess.Process) -> None:
    """Its input ends, and so does it; at once where it is busy."""
    if child.returncode is None:
        child.kill()  # it holds nothing that a kill could break: transactions roll back
    await child.wait()
