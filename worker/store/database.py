"""The connection to PostgreSQL: pool, transactions, and what every SQLSTATE means for a message.

Promises that each failure of a statement comes out as one of three: Invalid (never), Unavailable (not now),
Misconfigured (stop); that a connection which failed is not used again; and that those which were open beside a
connection that was lost are not tried one after the other.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from worker.errors import Invalid, Misconfigured, Unavailable, WorkerError
from worker.store import silence
from worker.store.migrations import asyncpg_url

# SQLSTATE classes (two characters) and codes (five), PostgreSQL documentation, appendix A. The longer match decides.
_INVALID = ("21", "22", "23", "44", "54", "P0001")
_UNAVAILABLE = (
    "08",  # connection exception
    "25006",  # read-only transaction: an old primary after a failover
    "25P03",  # idle-in-transaction timeout
    "25P04",  # transaction timeout
    "28",  # credentials are being rotated: wait for them
    "3D",  # database is being restored
    "40",  # serialisation failure, deadlock
    "53",  # disk full, out of memory, too many connections
    "55",  # object in use, lock not available
    "57",  # operator intervention: shutdown, cancelled statement
    "58",  # input/output error
    "XX",  # internal error: this server, not this row
)
_SERVER_LOST = ("08", "25006", "57P")
"""Codes after which every connection to this server is worthless: it is gone, going, or no longer the primary."""

_ROLLED_BACK = ("40001", "40P01", "55", "57014")
"""Codes that a COMMIT gives only before it has begun to commit: a deadlock, a lock or a time limit of its checks."""

_ROLLBACK_SECONDS = 2


_OF_PARTITIONS = ("ExecPartitionCheckEmitError", "ExecFindPartition")
"""Where in the server a row finds no partition, or one that has just become another's; a message has no part in it."""


def meaning(sqlstate: str, text: str, raised_in: str | None = None) -> WorkerError:
    """What an error of the server means, as the one table of the worker says.

    `raised_in`: the function of the server that raised it. The text decides nothing: servers speak many languages.
    """
    if sqlstate == "23514" and raised_in in _OF_PARTITIONS:
        # Somebody attaches or detaches a partition beside us.
        return Unavailable(f"PostgreSQL: {text} ({sqlstate})", sqlstate=sqlstate)
    for length in (5, 2):
        if sqlstate[:length] in _INVALID:
            return Invalid(text, sqlstate)
        if sqlstate[:length] in _UNAVAILABLE:
            return Unavailable(f"PostgreSQL: {text} ({sqlstate})", sqlstate=sqlstate)
    return Misconfigured(
        f"PostgreSQL refused a statement for a reason that is no message's fault: {text} ({sqlstate}). "
        "Are all migrations applied (alembic upgrade head), and may this role write?"
    )


def translate(error: BaseException) -> WorkerError:
    """An exception of a driver call as one of the worker's own; anything else is raised again."""
    if isinstance(error, WorkerError):
        return error
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    if isinstance(error, asyncpg.InterfaceError):
        if isinstance(error, asyncpg.DataError) or "invalid input" in str(error):
            return Invalid(str(error)[:500])
        return Unavailable(f"PostgreSQL: {error}")
    if isinstance(error, asyncpg.PostgresError):
        if isinstance(error, asyncpg.InvalidCachedStatementError):
            # A migration changed what a prepared statement gives; a new connection prepares it anew.
            return Unavailable(f"PostgreSQL: {error}", sqlstate="0A000")
        return meaning(error.sqlstate or "XX000", _sentence(error), error.server_source_function)
    if isinstance(error, (OSError, TimeoutError, asyncio.IncompleteReadError, SQLAlchemyError)):
        return Unavailable(f"PostgreSQL: {str(error) or type(error).__name__}")
    if isinstance(error, asyncpg.InternalClientError):
        # The driver lost its place: the connection was cut in the middle of an answer.
        return Unavailable(f"PostgreSQL: {error}")
    raise error  # a fault of our own: it ends the process, and a message that brings it about is found as a suspect


def _sentence(error: asyncpg.PostgresError) -> str:
    """The server's message, and the constraint or column where it names one; no row values, they may be secret."""
    text = str(
        error.message or error
    )  # without a message: the driver's own, such as a lost connection
    place = error.constraint_name or error.column_name
    return f"{text} ({place})" if place and place not in text else text


_IDLE_TIMES = 2
"""How many statement timeouts a transaction may be idle: the slowest that is alive waits for RabbitMQ, in a sweep."""


class Database:
    """A pool of connections to one database."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        pool_size: int = 10,
        pool_overflow: int = 4,
        pool_timeout: float = 10,
        statement_timeout: float = 60,
    ) -> None:
        self.engine: AsyncEngine = create_async_engine(
            asyncpg_url(url),
            pool_size=pool_size,
            max_overflow=pool_overflow,
            pool_timeout=pool_timeout,
            pool_recycle=1800,
            connect_args={
                "timeout": 10,
                "command_timeout": statement_timeout,
                "server_settings": {
                    "application_name": name[:63],
                    "TimeZone": "UTC",
                    **silence.SERVER_SETTINGS,
                    # A worker that was stopped must not keep its locks: others are given its messages and wait for
                    # its keys.
                    "idle_in_transaction_session_timeout": str(
                        int(_IDLE_TIMES * statement_timeout * 1000)
                    ),
                },
            },
        )
        self._lost_at = float("-inf")
        event.listen(self.engine.sync_engine, "connect", _prepare)
        event.listen(self.engine.sync_engine, "checkout", self._refuse_stale)

    def _refuse_stale(self, dbapi_connection: Any, record: Any, _proxy: Any) -> None:
        """Let the pool replace a connection that is closed, or was open when another one was lost.

        After a failover, or behind a firewall that forgot them, each would fail by itself, and slowly.
        """
        driver = dbapi_connection.driver_connection
        if driver.is_closed() or record.info[_MADE_AT] <= self._lost_at:
            driver.terminate()
            raise DisconnectionError("open when the server was lost")

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """A SQLAlchemy connection in a transaction that commits at the end. Raises Invalid, Unavailable, Misconfigured."""
        try:
            async with self.engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, OSError, TimeoutError, asyncpg.PostgresError) as error:
            raise translate(error) from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """The driver's own connection in a READ COMMITTED transaction, for bulk statements.

        It commits at the end of the block; any exception rolls back and is translated. A connection that failed in any
        way but a refused row is closed, so that a pool does not stay with an old primary.
        """
        try:
            checked_out = await self.engine.connect()
        except Exception as error:
            raise translate(error) from error
        committing = False
        try:
            raw = await checked_out.get_raw_connection()
            driver: Any = raw.driver_connection
            transaction = driver.transaction(isolation="read_committed")  # whatever the default is
            await transaction.start()
            try:
                yield driver
            except BaseException:
                await _roll_back(transaction)
                raise
            committing = True
            await transaction.commit()
        except (asyncio.CancelledError, GeneratorExit):
            await _discard(checked_out)
            raise
        except Exception as error:
            meant = translate(error)
            if isinstance(meant, Unavailable):
                meant.ambiguous = committing and not meant.sqlstate.startswith(_ROLLED_BACK)
                # One of our own, raised in the block, such as a sweep's that RabbitMQ did not answer.
                ours = meant is error and not meant.sqlstate
                if meant.sqlstate.startswith(_SERVER_LOST) or not (meant.sqlstate or ours):
                    self._lost_at = time.monotonic()
            if not isinstance(meant, Invalid):
                await _discard(checked_out)
            raise meant from error
        finally:
            await asyncio.shield(checked_out.close())

    async def check(self) -> str:
        """The server's version, once it has answered; for use at start.

        Raises Unavailable, naming the place, where it does not; Misconfigured where it refuses the user, the password or
        the database. (Later the same refusal is Unavailable: credentials are being changed, the database restored.)
        """
        try:
            async with self.connection() as connection:
                version = await connection.exec_driver_sql("SHOW server_version")
                return str(version.scalar_one())
        except TypeError as error:
            raise Misconfigured(
                f"DATABASE_URL has a parameter that asyncpg does not know: {error}"
            ) from error
        except Unavailable as error:
            url = self.engine.url
            place = f"{url.host or 'localhost'}:{url.port or 5432}/{url.database or ''}"
            if error.sqlstate[:2] in ("28", "3D"):
                raise Misconfigured(f"the database at {place} refused: {error}") from error
            raise Unavailable(f"the database at {place} does not answer: {error}") from error

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


_MADE_AT = "made_at"


def _prepare(dbapi_connection: Any, record: Any) -> None:
    record.info[_MADE_AT] = time.monotonic()
    silence.notice(dbapi_connection.driver_connection)


async def _roll_back(transaction: Any) -> None:
    """Roll back as far as the connection still answers; if it does not, the server rolls back by itself."""
    with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        async with asyncio.timeout(_ROLLBACK_SECONDS):
            await transaction.rollback()


async def _discard(connection: AsyncConnection) -> None:
    """Close a connection instead of giving it back to the pool."""
    with suppress(SQLAlchemyError, OSError, asyncpg.InterfaceError):
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        if driver is not None:
            driver.terminate()
        await connection.invalidate()
