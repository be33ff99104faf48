"""Servers that are given by their URL, DATABASE_URL and AMQP_URL.

Owns the promise made for these, which may be anybody's: the sandbox works only inside databases
and virtual hosts that it creates, and it drops them in the end.
"""

from __future__ import annotations

import shutil
import ssl
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from worker.sandbox import databases
from worker.sandbox.administration import Administration, CommandAdministration
from worker.sandbox.errors import SandboxError
from worker.sandbox.management import ManagementAdministration
from worker.sandbox.postgres import Postgres
from worker.sandbox.rabbitmq import Address, RabbitMQ, broker_version
from worker.sandbox.service import Borrowed, Surroundings

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


def given_postgres(surroundings: Surroundings) -> Postgres:
    """Return the server of DATABASE_URL."""
    url = surroundings.environment.get("DATABASE_URL")
    if not url:
        raise SandboxError(
            "WORKER_SANDBOX_POSTGRES=url needs DATABASE_URL, "
            "such as postgresql+asyncpg://user:password@host/database."
        )
    address = databases.Address.parse(url)
    service = Postgres(
        kind="url",
        version=databases.server_version(address),
        lifecycle=Borrowed("PostgreSQL"),
        address=address,
    )
    surroundings.closing.callback(service.drop_all)
    return service


def given_rabbitmq(surroundings: Surroundings) -> RabbitMQ:
    """Return the broker of AMQP_URL."""
    url = surroundings.environment.get("AMQP_URL")
    if not url:
        raise SandboxError(
            "WORKER_SANDBOX_RABBITMQ=url needs AMQP_URL, such as amqp://user:password@host/."
        )
    address = broker_address(url)
    version = broker_version(address.host, address.port, wrap=_wrapper(address))
    if version is None:
        raise SandboxError(f"No RabbitMQ answers on {address.host}:{address.port} (AMQP_URL).")
    administration = _administration(address, surroundings.environment)
    service = RabbitMQ(
        kind="url",
        version=version,
        lifecycle=Borrowed("RabbitMQ"),
        address=address,
        administration=administration,
    )
    surroundings.closing.callback(service.drop_all)
    return service


def broker_address(url: str) -> Address:
    """Read an AMQP URL."""
    parts = urlsplit(url)
    if parts.scheme not in {"amqp", "amqps"}:
        raise SandboxError("AMQP_URL is not a RabbitMQ URL: it must begin with amqp or amqps.")
    try:
        port = parts.port
    except ValueError:
        raise SandboxError("AMQP_URL must name one host here, with a number as port.") from None
    return Address(
        host=parts.hostname or "localhost",
        port=port or (5671 if parts.scheme == "amqps" else 5672),
        user=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        scheme=parts.scheme,
        query=parts.query,
    )


def _wrapper(address: Address) -> Callable[[socket.socket], socket.socket]:
    if address.scheme == "amqp":
        return lambda plain: plain
    # Only the greeting is read here, and nothing secret is sent: the client checks certificates.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return lambda plain: context.wrap_socket(plain, server_hostname=address.host)


def _administration(address: Address, environment: Mapping[str, str]) -> Administration:
    if url := environment.get("WORKER_SANDBOX_RABBITMQ_MANAGEMENT"):
        return ManagementAdministration.parse(url, address.user, address.password)
    program = shutil.which("rabbitmqctl", path=environment.get("PATH"))
    if program and address.host in LOCAL_HOSTS:
        administration = CommandAdministration(program, environment)
        if administration.serves(address.port):
            return administration
    raise SandboxError(
        f"A virtual host of its own in the RabbitMQ on {address.host}:{address.port} takes its "
        "management API (set WORKER_SANDBOX_RABBITMQ_MANAGEMENT, such as http://localhost:15672) "
        "or a rabbitmqctl that can reach it."
    )
