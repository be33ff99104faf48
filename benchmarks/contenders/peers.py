"""What else does this job: programs of benchmarks/peers, each in the packages of requirements/bench.txt."""

import asyncio
import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import aiormq

from benchmarks.contenders.contender import ROOT, Contender, python
from benchmarks.load import Body, Load
from benchmarks.services import Place


@dataclass(frozen=True)
class Peer(Contender):
    """A program of benchmarks/peers that reads the worker's own queues."""

    module: str = ""
    package: str = ""

    @property
    def missing(self) -> str | None:
        """Whether its package is not installed."""
        if importlib.util.find_spec(self.package) is None:
            return f"{self.package} is not installed: run this through `make bench`"
        return None

    def commands(self, place: Place, load: Load) -> list[tuple[list[str], Mapping[str, str]]]:
        """One process."""
        return [(python("-m", f"benchmarks.peers.{self.module}"), environment(place, load))]


@dataclass(frozen=True)
class CeleryPeer(Peer):
    """Celery, with a queue and messages of its own."""

    def queues(self, load: Load) -> tuple[str, ...]:  # noqa: ARG002 (whatever the load)
        """Its own queue."""
        return ("bench.celery",)

    async def fill(self, place: Place, load: Load) -> None:
        """Make the backlog as Celery does, in a process that imports it with this run's address."""
        program = (
            "import sys; from benchmarks.peers import celery_app; "
            "celery_app.fill(sys.stdin.buffer.read().splitlines())"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            program,
            cwd=ROOT,
            env={**os.environ, **environment(place, load)},
            stdin=asyncio.subprocess.PIPE,
        )
        await process.communicate(b"\n".join(body.content for body in load.bodies))
        if process.returncode:
            raise RuntimeError("Celery's backlog could not be made")

    def commands(self, place: Place, load: Load) -> list[tuple[list[str], Mapping[str, str]]]:
        """Its worker, as its documents start it for many small tasks."""
        arguments = ["-m", "celery", "-A", "benchmarks.peers.celery_app", "worker"]
        arguments += ["--concurrency", "8", "--without-gossip", "--without-mingle"]
        arguments += ["--without-heartbeat", "--loglevel", "WARNING"]
        return [(python(*arguments), environment(place, load))]


@dataclass(frozen=True)
class BridgePeer(Peer):
    """mq-bridge, with a classic queue of its own."""

    def queues(self, load: Load) -> tuple[str, ...]:  # noqa: ARG002 (whatever the load)
        """Its own queue."""
        return ("bench.mq-bridge",)

    async def fill(self, place: Place, load: Load) -> None:
        """Declare its queue and publish to it through the default exchange."""
        connection = await aiormq.connect(place.amqp_url)
        channel = await connection.channel()
        [queue] = self.queues(load)
        await channel.queue_declare(queue, durable=True)
        await connection.close()
        bodies = [Body(queue, body.content) for body in load.bodies]
        await place.broker.publish(bodies, exchange="")


def environment(place: Place, load: Load) -> dict[str, str]:
    """What the programs read."""
    return {
        "DATABASE_URL": place.database_url,
        "AMQP_URL": place.amqp_url,
        "QUEUES": ",".join(load.queues),
        "CONFIRMATION_KEY": "execution-log.persisted.default",
    }


PEERS: tuple[Contender, ...] = (
    Peer("faststream-sqlalchemy", module="faststream_sqlalchemy", package="faststream"),
    Peer("faststream-asyncpg", module="faststream_asyncpg", package="faststream"),
    Peer("aio-pika-sqlalchemy", module="aio_pika_sqlalchemy", package="aio_pika"),
    CeleryPeer("celery", loads=("logs",), module="celery_app", package="celery"),
    BridgePeer("mq-bridge", loads=("logs",), module="mq_bridge_app", package="mq_bridge"),
)
