"""The guard of a given installation: what may be used as scratch, its mark, and its removal.

Before anything else is made, a mark is: an exchange and a table that are named after the command (`torture.mark` and
`torture_mark`). What carries the mark of a command was made by a run of it that was ended before it could tidy up, and
may be removed; what does not is somebody else's.
"""

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import asyncpg

from contracts.registry import families
from worker.broker import topology
from worker.broker.connection import BROKER_ERRORS, BrokerConnection, connect
from worker.errors import Misconfigured, Unavailable
from worker.settings import Settings
from worker.store.migrations import downgrade
from worker.torture import hearing

_SHOWN = 3


@dataclass(frozen=True)
class Mark:
    """What a command leaves in its scratch place; scratch places of a command have names that begin with the command's."""

    command: str
    does: str

    @property
    def exchange(self) -> str:
        """The mark in a virtual host."""
        return f"{self.command}.mark"

    @property
    def table(self) -> str:
        """The mark in a database."""
        return f"{self.command}_mark"


TORTURE = Mark("torture", "kills workers and removes what it finds under its mark")


async def claim(
    settings: Settings, database: str | None, virtual_host: str | None, mark: Mark = TORTURE
) -> None:
    """Check that both are scratch, mark them, and empty what an earlier run left. Raises Misconfigured, with nothing touched."""
    check_name("database", _path(settings.database), database, "DATABASE_URL", "--database", mark)
    place = _path(settings.broker)
    check_name("virtual host", place, virtual_host, "AMQP_URL", "--virtual-host", mark)
    broker = await connect(settings.broker, name="scratch guard")
    try:
        marked_host = await _check_virtual_host(broker, place, mark)
        marked_database = await _check_database(settings, mark)
        await _mark(broker, settings, mark)
        if marked_host:
            await _empty_virtual_host(broker)
    finally:
        await broker.close()
    if marked_database:
        await _empty_database(settings)


def check_name(
    what: str, name: str, named: str | None, variable: str, option: str, mark: Mark
) -> None:
    """Refuse a name that nobody has called a scratch one."""
    if named is not None and named != name:
        raise Misconfigured(f"{option} says {named!r}, and {variable} names the {what} {name!r}")
    if named is None and not name.startswith(mark.command):
        raise Misconfigured(
            f"{variable} names the {what} {name or '/'!r}, where live data may be: worker {mark.command} "
            f"{mark.does}. Make an empty {what} whose name begins with {mark.command!r}, or say "
            f"{option} {name!r} if this one is scratch; --own-services runs in services of its own instead"
        )


async def remove(settings: Settings, mark: Mark = TORTURE) -> None:
    """Remove everything, the marks last. Raises Unavailable where a service has gone."""
    broker = await connect(settings.broker, name="scratch guard")
    try:
        await _empty_virtual_host(broker)
        channel = await broker.channel()
        await channel.exchange_delete(mark.exchange)
        await channel.close()
    except BROKER_ERRORS as error:
        raise Unavailable(f"RabbitMQ did not remove what {mark.command} made: {error}") from error
    finally:
        await broker.close()
    await _empty_database(settings)
    await _execute(settings, f"DROP TABLE IF EXISTS {mark.table}")


async def versions(settings: Settings) -> tuple[str, ...]:
    """What the services are."""
    broker = await connect(settings.broker, name="scratch guard")
    try:
        server = broker.server
    finally:
        await broker.close()
    database = await _connect(settings)
    try:
        version = await database.fetchval("SHOW server_version")
    finally:
        await database.close()
    return f"{server} (given)", f"PostgreSQL {version} (given)"


# --- the virtual host ---


async def _check_virtual_host(broker: BrokerConnection, place: str, mark: Mark) -> bool:
    """Whether it carries the mark. Raises Misconfigured where it holds anything of a worker without one."""
    wanted = topology.topology(families().values())
    found = [
        f"the exchange {exchange.name}"
        for exchange in wanted.exchanges
        if await topology.exchange_exists(broker, exchange.name)
    ]
    for name in (*(queue.name for queue in wanted.queues), *hearing.QUEUES):
        counts = await topology.queue_counts(broker, name)
        if counts is None:
            continue
        found.append(f"the queue {name}")
        if counts[1]:
            raise Misconfigured(
                f"the virtual host {place!r} is in use: the queue {name} has {counts[1]} consumers. End these "
                "workers, or the other {mark.command}, first; or use another virtual host"
            )
    marked = await topology.exchange_exists(broker, mark.exchange)
    if found and not marked:
        shown = ", ".join(found[:_SHOWN])
        raise Misconfigured(
            f"the virtual host {place!r} holds {shown} and has no mark of an earlier {mark.command}: these are a "
            f"live worker's. Make an empty virtual host for it: rabbitmqctl add_vhost {mark.command}"
        )
    return marked


async def _empty_virtual_host(broker: BrokerConnection) -> None:
    wanted = topology.topology(families().values())
    channel = await broker.channel()
    for name in (*(queue.name for queue in wanted.queues), *hearing.QUEUES):
        await channel.queue_delete(name)
    for exchange in wanted.exchanges:
        await channel.exchange_delete(exchange.name)
    await channel.close()


# --- the database ---


async def _check_database(settings: Settings, mark: Mark) -> bool:
    """Whether it carries the mark. Raises Misconfigured where it holds tables without one."""
    tables = await _tables(settings)
    if mark.table in tables:
        return True
    if tables:
        shown = ", ".join(tables[:_SHOWN])
        raise Misconfigured(
            f"the database {settings.database_place} holds tables ({shown}) and has no mark of an earlier {mark.command}. "
            f"Make an empty one for it: CREATE DATABASE {mark.command}"
        )
    return False


async def _tables(settings: Settings) -> list[str]:
    database = await _connect(settings)
    try:
        found = await database.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema') "
            "ORDER BY tablename"
        )
    finally:
        await database.close()
    return [row["tablename"] for row in found]


async def _empty_database(settings: Settings) -> None:
    """Take the migrations back; what is left then is Alembic's own table."""
    downgrade(settings.database, "base")
    await _execute(settings, "DROP TABLE IF EXISTS alembic_version")


async def _execute(settings: Settings, sql: str) -> None:
    database = await _connect(settings)
    try:
        await database.execute(sql)
    except asyncpg.PostgresError as error:
        raise Misconfigured(
            f"the database {settings.database_place} refused {sql!r}: {error}"
        ) from error
    finally:
        await database.close()


async def _connect(settings: Settings) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(settings.database.replace("+asyncpg", ""), timeout=10)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise Unavailable(
            f"the database at {settings.database_place} cannot be reached: {error}"
        ) from error


# --- both ---


async def _mark(broker: BrokerConnection, settings: Settings, mark: Mark) -> None:
    channel = await broker.channel()
    try:
        await channel.exchange_declare(mark.exchange, exchange_type="fanout", durable=True)
        await channel.close()
    except BROKER_ERRORS as error:
        raise Misconfigured(f"this user may not declare an exchange: {error}") from error
    await _execute(settings, f"CREATE TABLE IF NOT EXISTS {mark.table} ()")


def _path(url: str) -> str:
    """The database or virtual host that a URL names; an AMQP URL without one names the default, /."""
    path = urlsplit(url).path
    return unquote(path[1:]) if len(path) > 1 else ("/" if url.startswith("amqp") else "")
