"""The database as programs use it: transactions with a scope, repositories in them, and how well it all does.

Promises that a transaction commits at the end of its block or not at all, that one which only reads cannot write, and
that a health check measures instead of guessing.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.errors import WorkerError
from worker.repositories.groups import repository_of
from worker.repositories.repository import Repository
from worker.repositories.scope import Scope
from worker.settings import Settings
from worker.store.database import Database

R = TypeVar("R", bound=Repository)

_HEALTH_TIMEOUT = 5.0


@dataclass(frozen=True)
class PoolUse:
    """Connections of this process: `in_use` of at most `most`, and `idle` ones that are open."""

    in_use: int
    idle: int
    size: int
    most: int


@dataclass(frozen=True)
class Health:
    """How the database does, seen from here."""

    problem: str | None
    """Why it does not answer, if it does not."""
    connect_ms: float | None
    """How long it took to be given a connection: long where the pool is used up."""
    latency_ms: float | None
    """One round trip on that connection."""
    pool: PoolUse

    @property
    def healthy(self) -> bool:
        """Whether it answers."""
        return self.problem is None


class Transaction:
    """One transaction, and the repositories that work in it."""

    def __init__(self, connection: AsyncConnection, scope: Scope) -> None:
        self.connection = connection
        self.scope = scope

    def repository(self, kind: type[R]) -> R:
        """A repository of this class, bound to the transaction and its scope."""
        return kind(self.connection, self.scope)

    def table(self, name: str) -> Repository:
        """The repository of a table by its name. Raises BadQuery where there is none."""
        return repository_of(name)(self.connection, self.scope)


class DatabaseService:
    """One pool of connections. `async with DatabaseService(settings) as service:` closes it at the end."""

    def __init__(self, settings: Settings) -> None:
        self._most = settings.pool_size + settings.pool_overflow
        self.database = Database(
            settings.database,
            name=f"{settings.name} reader",
            pool_size=settings.pool_size,
            pool_overflow=settings.pool_overflow,
            pool_timeout=settings.pool_timeout,
            statement_timeout=settings.statement_timeout,
        )

    async def __aenter__(self) -> Self:
        """Nothing is opened before it is needed."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        await self.database.close()

    @asynccontextmanager
    async def transaction(self, scope: Scope) -> AsyncIterator[Transaction]:
        """A READ COMMITTED transaction: it commits at the end of the block; any exception rolls it back.

        Raises Unavailable where it should be tried again: the server is away, or two transactions were in each
        other's way.
        """
        async with self._begin(scope, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED") as begun:
            yield begun

    @asynccontextmanager
    async def reading(self, scope: Scope) -> AsyncIterator[Transaction]:
        """A transaction that cannot write, and in which all statements see the same moment."""
        mode = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
        async with self._begin(scope, mode) as begun:
            yield begun

    @asynccontextmanager
    async def _begin(self, scope: Scope, mode: str) -> AsyncIterator[Transaction]:
        async with self.database.connection() as connection:
            # The first statement begins the transaction at the server: what follows on the driver's own connection is
            # within it.
            await connection.exec_driver_sql(mode)
            session = "" if scope.session is None else str(scope.session)
            fence = {"app.tenant_id": scope.tenant, "app.session_id": session}
            for name, value in fence.items():
                await connection.execute(sa.select(sa.func.set_config(name, value, sa.true())))
            yield Transaction(connection, scope)

    async def health(self, *, patience: float = _HEALTH_TIMEOUT) -> Health:
        """Measure a connection and a round trip; what fails, or takes longer than `patience` seconds, is the problem."""
        connect = latency = None
        problem: str | None = None
        began = time.perf_counter()
        try:
            async with asyncio.timeout(patience), self.database.connection() as connection:
                connect = _milliseconds(began)
                asked = time.perf_counter()
                await connection.exec_driver_sql("SELECT 1")
                latency = _milliseconds(asked)
        except TimeoutError:
            problem = f"no answer within {patience:g} s"
        except WorkerError as error:
            problem = str(error)
        return Health(problem, connect, latency, self.pool)

    @property
    def pool(self) -> PoolUse:
        """How the pool is used now."""
        pool = cast("Any", self.database.engine.pool)
        return PoolUse(pool.checkedout(), pool.checkedin(), pool.size(), self._most)


def _milliseconds(since: float) -> float:
    return round((time.perf_counter() - since) * 1000, 3)
