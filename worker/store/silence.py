"""A server, or a worker, that is gone without a word: how soon the other side gives the connection up.

Packets that vanish (a firewall, a cable, a machine that lost its power) end no connection by themselves. TCP repeats
what has no answer at intervals that double: after a minute of silence the next attempt is up to another minute away,
and a connection that only waits for an answer would wait for ever. So the worker's kernel asks, and gives up after
seconds; a new connection is there as soon as the way is. A server that computes is not concerned: its kernel answers.
One that reads nothing of a large message for as long is given up, too: the kernel tells neither from the other.

The options of the sockets are those of Linux (tcp(7)); elsewhere what the system has is set, and the rest is left out.
"""

import socket
from contextlib import suppress
from typing import Any

_SILENT_FOR = 10
"""Seconds without a word from the server's kernel, although it was asked, after which a connection is lost."""
_ASKED_AFTER, _ASKED_EVERY = 5, 2  # seconds of silence

SERVER_SETTINGS = {
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
"""For the server: a worker whose machine is gone must not keep its locks, others wait for its keys. Keepalives are sent
while nothing is on its way; what is on its way and never confirmed, an answer, falls under the last one (milliseconds)."""

_OPTIONS = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", _ASKED_AFTER),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", _ASKED_EVERY),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", _SILENT_FOR // _ASKED_EVERY),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", _SILENT_FOR * 1000),
)


def notice(driver: Any) -> None:
    """Have the kernel notice the silence of the server of this asyncpg connection; nothing where it is a Unix socket."""
    # asyncpg has no public way to its socket; where a version of it hides that elsewhere, TCP's own patience is left.
    transport = getattr(driver, "_transport", None)
    found = transport.get_extra_info("socket") if transport is not None else None
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    for level, name, value in _OPTIONS:
        # What a kernel refuses is left out; a connection that is closed already is noticed when it is used.
        with suppress(AttributeError, OSError, ValueError):
            found.setsockopt(level, getattr(socket, name), value)
