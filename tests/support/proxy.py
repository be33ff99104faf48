"""A TCP proxy between a worker and a service, through which a test breaks the network for real.

Faults: `cut` (every connection ends), `refuse` (nobody listens), `stall` (bytes wait, as in a network that comes
back), `swallow` (half-open: connections stay, bytes vanish for ever) and `slow`. `heal` ends them for what is connected
from then on.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["cut", "refuse", "stall", "swallow", "slow"]
_CHUNK = 64 * 1024


@dataclass(eq=False)
class _Link:
    """One connection of the worker's, and ours to the service behind it."""

    to_client: asyncio.StreamWriter
    to_service: asyncio.StreamWriter
    hole: bool = False

    def abort(self) -> None:
        for writer in (self.to_client, self.to_service):
            writer.transport.abort()


@dataclass(eq=False)
class Proxy:
    """An address of our own in front of a service's; `target` may change, as a failover does."""

    target: tuple[str, int]
    port: int = 0
    host: str = "127.0.0.1"
    bytes_to_client: int = 0
    _server: asyncio.Server | None = None
    _links: set[_Link] = field(default_factory=set)
    _tasks: "set[asyncio.Task[None]]" = field(default_factory=set)
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    _healed: asyncio.Event = field(default_factory=asyncio.Event)
    _swallowing: bool = False
    _rate: int | None = None

    async def listen(self) -> None:
        """Take connections, on the same port as before."""
        self._server = await asyncio.start_server(self._accepted, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        await self.heal()
        await self._stop_listening()
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)  # most end by being cut
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        """How many connections there are, dead ones that nobody noticed included."""
        return len(self._links)

    @property
    def untaken(self) -> int:
        """Bytes that wait because the worker does not read its sockets."""
        return sum(link.to_client.transport.get_write_buffer_size() for link in self._links)

    # --- faults ---

    async def inflict(self, fault: Fault) -> None:
        """Begin a fault; `heal` ends it."""
        match fault:
            case "cut":
                self.cut()
            case "refuse":
                await self.refuse()
            case "stall":
                self.stall()
            case "swallow":
                self.swallow()
            case "slow":
                self.slow(20_000)

    def cut(self) -> None:
        """End every connection at once."""
        for link in list(self._links):
            link.abort()

    async def refuse(self) -> None:
        """End every connection, and let nobody connect."""
        await self._stop_listening()
        self.cut()

    def stall(self) -> None:
        """Hold every byte back; none is lost."""
        self._open.clear()

    def swallow(self) -> None:
        """Half-open: what is connected stays so, and every byte vanishes, also after `heal`."""
        self._swallowing = True
        for link in self._links:
            link.hole = True

    def slow(self, bytes_per_second: int) -> None:
        """Let so many bytes a second through, each way and connection."""
        self._rate = bytes_per_second
        self._healed.clear()

    async def heal(self) -> None:
        """Be an honest network again; what was swallowed stays a hole."""
        self._swallowing = False
        self._rate = None
        self._healed.set()
        self._open.set()
        if self._server is None:
            await self.listen()

    # --- bytes ---

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            service_reader, service_writer = await asyncio.open_connection(*self.target)
            await self._carry(
                _Link(writer, service_writer, self._swallowing), reader, service_reader
            )
        except OSError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _carry(
        self, link: _Link, client: asyncio.StreamReader, service: asyncio.StreamReader
    ) -> None:
        """Carry bytes both ways until one side ends; a client in a hole hears nothing of the service's end."""
        self._links.add(link)
        up = asyncio.create_task(self._pump(link, client, link.to_service, up=True))
        down = asyncio.create_task(self._pump(link, service, link.to_client, up=False))
        try:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            if link.hole:
                await up
        finally:
            self._links.discard(link)
            link.abort()
            up.cancel()
            down.cancel()

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._open.wait()
                if link.hole:
                    continue
                self.bytes_to_client += 0 if up else len(data)
                await self._slowly(len(data))
                writer.write(data)
                await writer.drain()

    async def _slowly(self, size: int) -> None:
        if self._rate:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._healed.wait(), size / self._rate)


@asynccontextmanager
async def proxy_before(url: str, host: str = "127.0.0.1") -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy in front of the service of a URL, on this address of ours, and the URL by way of the proxy."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    proxy = Proxy((parts.hostname, parts.port), host=host)
    proxy._open.set()
    proxy._healed.set()
    await proxy.listen()
    login, at, _ = parts.netloc.rpartition("@")
    try:
        yield proxy, parts._replace(netloc=f"{login}{at}{host}:{proxy.port}").geturl()
    finally:
        await proxy.close()
