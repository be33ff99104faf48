"""A TCP proxy between workers and a service, in which the network can be broken.

Promises that the service behind it sees nothing but what a network would do, and that `heal` ends every fault for the
connections that are made after it.
"""

import asyncio
import contextlib
from typing import Self
from urllib.parse import urlsplit

_CHUNK = 64 * 1024


class _Link:
    """One connection, both halves of it."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.near = near
        self.far = far
        self.ended = asyncio.Event()
        self.hole = False
        """Half-open for ever: bytes vanish, and neither end is told."""

    def abort(self) -> None:
        self.ended.set()
        for writer in (self.near, self.far):
            writer.transport.abort()


class Proxy:
    """Listens on 127.0.0.1 and passes on what comes."""

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refusing = False
        self._swallowing = False
        self._delay = 0.0
        self._rate = 0.0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def url(self, url: str) -> str:
        """The URL of the service, by way of this proxy."""
        parts = urlsplit(url)
        login, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{login}{at}127.0.0.1:{self.port}").geturl()

    # --- faults ---

    def cut(self) -> None:
        """End every connection at once."""
        for link in list(self._links):
            link.abort()

    def refuse(self) -> None:
        """End every connection, and every one that is made from now on."""
        self._refusing = True
        self.cut()

    def swallow(self) -> None:
        """Half-open: connections stay and their bytes vanish, for those of now also after `heal`."""
        self._swallowing = True
        for link in self._links:
            link.hole = True

    def delay(self, seconds: float) -> None:
        """Pass each piece on so much later."""
        self._delay = seconds

    def slow(self, bytes_per_second: float) -> None:
        """Pass so many bytes a second on, each connection and way."""
        self._rate = bytes_per_second

    def heal(self) -> None:
        """Be an honest network again. What was swallowed is cut: no network keeps such a hole for ever."""
        self._refusing = self._swallowing = False
        self._delay = self._rate = 0.0
        for link in list(self._links):
            if link.hole:
                link.abort()

    # --- bytes ---

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (we are in one)
        self._tasks.add(task)
        try:
            if not self._refusing:
                far_reader, far_writer = await asyncio.open_connection(*self._target)
                await self._carry(_Link(writer, far_writer), reader, far_reader)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _carry(
        self, link: _Link, near: asyncio.StreamReader, far: asyncio.StreamReader
    ) -> None:
        """Carry bytes both ways until one end closes; in a hole the other one does not hear of it."""
        link.hole = self._swallowing
        self._links.add(link)
        ways = [
            asyncio.create_task(self._pump(link, near, link.far)),
            asyncio.create_task(self._pump(link, far, link.near)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if link.hole:
                await link.ended.wait()
        finally:
            self._links.discard(link)
            link.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(_CHUNK):
                if self._delay or self._rate:
                    await asyncio.sleep(self._delay + len(piece) / (self._rate or float("inf")))
                if link.hole:
                    continue
                writer.write(piece)
                await writer.drain()
