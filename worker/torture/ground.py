"""Where a run takes place: services of its own, or a scratch database and virtual host of an installation.

Promises that it never touches what somebody else made: in a given installation it works only in a virtual host and a
database that are named as scratch ones and hold nothing, or nothing but what an earlier run left behind under its mark;
and that it removes what it made.
"""

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from worker.errors import Misconfigured
from worker.sandbox import Postgres, RabbitMQ, Sandbox
from worker.sandbox.service import Say
from worker.settings import Settings
from worker.store.migrations import upgrade
from worker.torture import scratch
from worker.torture.scratch import TORTURE, Mark


@dataclass(frozen=True)
class Wish:
    """What was said about where to run. Names make a database or virtual host a scratch one, whatever it is called."""

    own_services: bool = False
    database: str | None = None
    virtual_host: str | None = None
    mark: Mark = TORTURE


@dataclass(frozen=True)
class Ground:
    """A migrated, empty database and an empty virtual host; the services where they may be restarted."""

    database_url: str
    amqp_url: str
    services: tuple[str, ...]
    postgres: Postgres | None = None
    rabbitmq: RabbitMQ | None = None


@contextmanager
def found(wish: Wish, say: Say, environment: Mapping[str, str] = os.environ) -> Iterator[Ground]:
    """The ground that was wished for, until the end of the block.

    Raises Misconfigured where it could touch what is somebody else's, SandboxError where there are no services.
    """
    if wish.own_services or _sandbox_is_told(environment) or not _given(environment):
        if wish.database or wish.virtual_host:
            raise Misconfigured(
                "--database and --virtual-host name what DATABASE_URL and AMQP_URL point to: set both"
            )
        with Sandbox(say=say) as sandbox:
            yield of_sandbox(sandbox)
        return
    settings = Settings.load()
    asyncio.run(scratch.claim(settings, wish.database, wish.virtual_host, wish.mark))
    try:
        say(f"scratch database {settings.database_place}, virtual host {settings.broker_place}")
        upgrade(settings.database)
        services = asyncio.run(scratch.versions(settings))
        yield Ground(settings.database, settings.broker, services)
    finally:
        asyncio.run(scratch.remove(settings, wish.mark))


def of_sandbox(sandbox: Sandbox) -> Ground:
    """The sandbox's own database and virtual host, which are new."""
    upgrade(sandbox.database_url)
    return Ground(
        sandbox.database_url,
        sandbox.amqp_url,
        (sandbox.rabbitmq.describe(), sandbox.postgres.describe()),
        sandbox.postgres if sandbox.postgres.owned else None,
        sandbox.rabbitmq if sandbox.rabbitmq.owned else None,
    )


def _given(environment: Mapping[str, str]) -> bool:
    """Whether an installation is given. Raises Misconfigured where half of one is."""
    names = ("DATABASE_URL", "AMQP_URL")
    there = [name for name in names if environment.get(name) or environment.get(f"{name}_FILE")]
    if len(there) == 1:
        [absent] = set(names) - set(there)
        raise Misconfigured(
            f"{there[0]} is set and {absent} is not: set both, to a scratch database and a scratch "
            "virtual host, or give --own-services"
        )
    return bool(there)


def _sandbox_is_told(environment: Mapping[str, str]) -> bool:
    """Whether the sandbox was told to make a database and virtual host of its own inside given services."""
    return any(
        environment.get(f"WORKER_SANDBOX_{name}") == "url" for name in ("POSTGRES", "RABBITMQ")
    )
