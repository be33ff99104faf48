"""The few SQL statements that the sandbox sends, and the address it sends them to.

Owns how a database URL is read and written. Statements are run by asyncpg on an event loop of
their own, and may be called from anywhere, also under a running loop.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from worker.sandbox.errors import SandboxError

CONNECT_SECONDS = 10.0


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """Where a PostgreSQL server is, and as whom to log in."""

    host: str
    port: int
    user: str
    password: str
    database: str
    query: str = ""

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read an SQLAlchemy or libpq URL."""
        parts = urlsplit(url)
        if parts.scheme.partition("+")[0] not in {"postgresql", "postgres"}:
            msg = "DATABASE_URL is not a PostgreSQL URL: it must begin with postgresql."
            raise SandboxError(msg)
        return cls(
            host=parts.hostname or "localhost",
            port=parts.port or 5432,
            user=unquote(parts.username or "postgres"),
            password=unquote(parts.password or ""),
            database=unquote(parts.path.lstrip("/")) or "postgres",
            query=parts.query,
        )

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of one of the server's databases."""
        return "postgresql+asyncpg://" + self._rest(database, self.query)

    def dsn(self) -> str:
        """Return the URL as asyncpg itself reads it: `ssl`, SQLAlchemy's word, is `sslmode`."""
        pairs = [("sslmode" if key == "ssl" else key, value) for key, value in self._pairs()]
        return "postgresql://" + self._rest(self.database, urlencode(pairs))

    def _pairs(self) -> list[tuple[str, str]]:
        return parse_qsl(self.query, keep_blank_values=True)

    def _rest(self, database: str, query: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        password = f":{quote(self.password, safe='')}" if self.password else ""
        login = quote(self.user, safe="") + password
        rest = f"{login}@{host}:{self.port}/{quote(database, safe='')}"
        return f"{rest}?{query}" if query else rest


def quoted(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def execute(address: Address, statement: str) -> None:
    """Run one statement that returns nothing."""
    _run(address, statement)


def server_version(address: Address) -> str:
    """Return the version of the server, such as 17.5."""
    return _run(address, "SHOW server_version").split()[0]


def _run(address: Address, statement: str) -> str:
    """Run a statement to its end; in a thread of its own where a loop runs in this one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run_here(address, statement)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_run_here, address, statement).result()


def _run_here(address: Address, statement: str) -> str:
    # Not asyncio.run: that would take away the event loop that the thread may have set.
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(_value(address, statement))
    finally:
        loop.close()


async def _value(address: Address, statement: str) -> str:
    import asyncpg  # noqa: PLC0415 (the sandbox is quick to import)

    where = f"PostgreSQL on {address.host}:{address.port}"
    try:
        connection = await asyncpg.connect(address.dsn(), timeout=CONNECT_SECONDS)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        msg = f"{where} cannot be reached: {error or type(error).__name__}."
        raise SandboxError(msg) from error
    try:
        return str(await connection.fetchval(statement))
    except asyncpg.PostgresError as error:
        msg = f"{where} refused {statement!r}: {error}."
        raise SandboxError(msg) from error
    finally:
        await connection.close()
