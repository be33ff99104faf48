"""RabbitMQ for the sandbox: the service that tests hold, whichever way the broker runs.

Owns `RabbitMQ` (virtual hosts, control, starting and stopping) and how to tell, without a
client library, that a broker accepts connections and which version it is.

A test that kills a broker should know: the name of a new quorum queue reaches the disk within
half a second. Killed before that, RabbitMQ (seen with 3.10) has the queue without a leader, and
has lost even confirmed messages in it; `control("eval", "[dets:sync(T) || T <- dets:all()].")`
writes the names at once.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.sandbox.administration import Administration

from worker.sandbox.service import Service

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
ADVICE = (
    "Another RabbitMQ can be chosen with WORKER_SANDBOX_RABBITMQ=docker, local, install "
    "or url (with AMQP_URL)."
)


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """Where a broker is, and as whom to log in."""

    host: str
    port: int
    user: str
    password: str
    scheme: str = "amqp"
    query: str = ""

    def url(self, virtual_host: str) -> str:
        """Return the URL of one of its virtual hosts."""
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        url = f"{self.scheme}://{login}@{host}:{self.port}/{quote(virtual_host, safe='')}"
        return f"{url}?{self.query}" if self.query else url


@dataclass(slots=True, kw_only=True, repr=False)
class RabbitMQ(Service):
    """A RabbitMQ broker and the scratch virtual hosts made in it."""

    address: Address
    administration: Administration

    def describe(self) -> str:
        """Return one line that says what it is and where, without a secret."""
        return f"RabbitMQ {self.version} ({self.kind}) on {self.address.host}:{self.address.port}"

    def create(self, name: str) -> str:
        """Create a virtual host and return its URL."""
        self.administration.add_virtual_host(name, self.address.user)
        self.created.add(name)
        return self.address.url(name)

    def drop(self, name: str) -> None:
        """Delete a virtual host that `create` made, with all that is in it."""
        self.check_created(name)
        self.administration.delete_virtual_host(name)
        self.created.discard(name)

    def control(self, *arguments: str) -> str:
        """Run rabbitmqctl, as in `control("list_queues", "name")`, and return what it prints."""
        return self.administration.control(*arguments)


def broker_version(
    host: str, port: int, *, wrap: Callable[[socket.socket], socket.socket] = lambda plain: plain
) -> str | None:
    """Return the version with which a broker greets; None when it does not (yet).

    The first frame of a broker, `connection.start`, is sent to anyone and holds its version.
    """
    try:
        with wrap(socket.create_connection((host, port), timeout=2.0)) as connection:
            connection.sendall(PROTOCOL_HEADER)
            frame_header = _receive(connection, 7)  # type, channel, size
            properties = _receive(connection, int.from_bytes(frame_header[3:7], "big"))
    except OSError:
        return None
    _, found, rest = properties.partition(b"\x07versionS")
    if not found:
        return None
    size = int.from_bytes(rest[:4], "big")
    return rest[4 : 4 + size].decode()


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            raise ConnectionResetError("the broker closed the connection")
        received += part
    return received
