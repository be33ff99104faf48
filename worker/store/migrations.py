"""Which migrations a database has, and running them from code.

The scripts are in `alembic/` of a checkout or `worker/migrations/` of an installed wheel. The command line is
Alembic's own: `alembic upgrade head`.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection

import worker
from worker.store.operational import schema_versions

if TYPE_CHECKING:
    from alembic.config import Config

_one_at_a_time = (
    threading.Lock()
)  # Alembic keeps the running environment in a global of the process


def asyncpg_url(url: str | URL) -> URL:
    """A PostgreSQL address for SQLAlchemy's asyncpg driver; libpq's `sslmode` is understood."""
    address = make_url(url)
    if address.drivername not in {"postgres", "postgresql", "postgresql+asyncpg"}:
        raise ValueError(f"not a PostgreSQL address: {address.render_as_string()}")
    if "sslmode" in address.query:
        mode = address.query["sslmode"]
        address = address.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return address.set(drivername="postgresql+asyncpg")


@cache
def scripts() -> Path:
    """The folder of the migration scripts: the wheel's own, or the checkout's beside the package."""
    package = Path(worker.__file__).parent
    for folder in (package / "migrations", package.parent / "alembic"):
        if (folder / "env.py").is_file():
            return folder
    raise FileNotFoundError("the migration scripts are neither in the package nor beside it")


def config(url: str | URL | None = None) -> "Config":
    """Alembic's configuration as code needs it, for the database of `url`."""
    from alembic.config import Config  # noqa: PLC0415 (a third of a second that a worker need not wait)

    settings = Config()
    settings.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    settings.set_main_option("path_separator", "os")
    if url is not None:
        settings.attributes["url"] = url
    return settings


def upgrade(url: str | URL, revision: str = "head") -> None:
    """Bring a database up to a revision. It blocks: from async code, call it with `asyncio.to_thread`."""
    from alembic import command  # noqa: PLC0415 (as above)

    _run(lambda: command.upgrade(config(url), revision))


def downgrade(url: str | URL, revision: str) -> None:
    """Take a database back to a revision, `base` for none; its data go with their tables."""
    from alembic import command  # noqa: PLC0415 (as above)

    _run(lambda: command.downgrade(config(url), revision))


async def applied_versions(connection: AsyncConnection) -> set[str]:
    """The revisions that the database has; none where it was never migrated."""
    if await connection.scalar(sa.select(sa.func.to_regclass(schema_versions.name))) is None:
        return set()
    return set(await connection.scalars(sa.select(schema_versions.c.version)))


async def missing(connection: AsyncConnection, required: Iterable[str]) -> set[str]:
    """Those of the required revisions that the database has not."""
    return set(required) - await applied_versions(connection)


def _run(step: Callable[[], None]) -> None:
    """Run a command in a thread of its own (the environment starts an event loop), one at a time."""
    with _one_at_a_time, ThreadPoolExecutor(1) as thread:
        thread.submit(step).result()
