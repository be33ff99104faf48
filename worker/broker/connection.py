"""One connection to RabbitMQ, with the tap of the byte stream installed below aiormq.

Owns opening, naming, closing and the noticing of a loss; reconnection is the caller's loop (app.py, relay.py).
Promises one error for everything that a broker can do to a connection attempt: Unavailable, or Misconfigured where
waiting cannot help. It rests on internals of aiormq and refuses to start where they are not as expected.
"""

import asyncio
import inspect
import random
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import aio_pika
import aiormq
from aio_pika.abc import ConnectionParameter
from aiormq.connection import SSLContextProvider, TransportFactory
from yarl import URL

from contracts.publishing.addresses import addresses, place
from contracts.publishing.disconnections import no_cancellation_but_ours
from worker.broker.tap import Sink, Tap
from worker.errors import Misconfigured, Unavailable

BROKER_ERRORS = (
    aiormq.exceptions.AMQPError,
    aio_pika.exceptions.AMQPError,
    ConnectionError,
    OSError,
    asyncio.TimeoutError,
    RuntimeError,
    StopAsyncIteration,  # aiormq, where a proxy accepts and closes before the broker has spoken
)
"""What a call on a connection or channel may raise when the broker goes away under it."""


_CLOSE_SECONDS = 5


class _TapFactory(TransportFactory):
    """Makes the transport as aiormq would, but with the tap as its protocol."""

    def __init__(self) -> None:
        self.tap: Tap | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def create(
        self, url: URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        provider: SSLContextProvider = kwargs.pop("ssl_context_provider")
        context = await provider.get_context() if url.scheme == "amqps" else None
        reader = asyncio.StreamReader(loop=loop)
        tap = Tap(reader, loop)
        transport, _ = await loop.create_connection(
            lambda: tap, url.host or "localhost", url.port or 0, ssl=context, **kwargs
        )
        self.tap = tap
        self.writer = asyncio.StreamWriter(transport, tap, reader, loop)
        return reader, self.writer


class _TappedConnection(aio_pika.Connection):
    """aio-pika's connection, passing our transport factory on to aiormq."""

    PARAMETERS = (
        *aio_pika.Connection.PARAMETERS,
        ConnectionParameter(
            name="transport_factory", parser=lambda factory: factory, is_kwarg=True
        ),
    )


def check_internals() -> None:
    """Refuse an aiormq that is not built as this module expects; raises Misconfigured."""
    parameters = inspect.signature(aiormq.Connection.__init__).parameters
    if "transport_factory" not in parameters or not hasattr(TransportFactory, "create"):
        raise Misconfigured(
            f"aiormq {version('aiormq')} has no transport factory; install the pinned version 7.2.4"
        )


class BrokerConnection:
    """An open connection. `lost` is set once it is gone, for whatever reason."""

    def __init__(self, amqp: aio_pika.Connection, factory: _TapFactory) -> None:
        self.amqp = amqp
        self.lost = asyncio.Event()
        assert factory.tap is not None  # noqa: S101 (connect() went through the factory)
        assert factory.writer is not None  # noqa: S101 (as above)
        self._tap = factory.tap
        self._writer = factory.writer
        amqp.close_callbacks.add(lambda *_: self.lost.set())

    @property
    def _aiormq(self) -> aiormq.abc.AbstractConnection:
        transport = self.amqp.transport
        if transport is None or self.lost.is_set():
            raise Unavailable("the connection to RabbitMQ is closed")
        return transport.connection

    @property
    def frame_max(self) -> int:
        """The largest frame in bytes that both sides agreed on."""
        tuned: int = self._aiormq.connection_tune.frame_max
        return tuned

    @property
    def heartbeat(self) -> int:
        """Seconds within which both sides hear of each other; 0 where a dead connection would not be noticed."""
        tuned: int = self._aiormq.connection_tune.heartbeat
        return tuned

    @property
    def channel_max(self) -> int:
        """The most channels on this connection; 0 where there is no limit."""
        tuned: int = self._aiormq.connection_tune.channel_max
        return tuned

    @property
    def server(self) -> str:
        """Product and version of the broker."""
        properties: dict[str, Any] = dict(self._aiormq.server_properties)
        return f"{_word(properties.get('product'))} {_word(properties.get('version'))}"

    async def channel(self, *, confirms: bool = False) -> aiormq.abc.AbstractChannel:
        """A new channel; with `confirms` the broker answers every publish on it."""
        try:
            with no_cancellation_but_ours():
                channel = await self._aiormq.channel(publisher_confirms=confirms)
        except BROKER_ERRORS as error:
            raise Unavailable(f"RabbitMQ refused a channel: {error}") from error
        # A channel's end is noticed through its own future; nobody else need retrieve its exception.
        channel.closing.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return channel

    def attach(self, channel: aiormq.abc.AbstractChannel, sink: Sink) -> None:
        """Hand the deliveries and confirms of a channel to a sink."""
        self._tap.attach(channel.number, sink)

    def detach(self, channel: aiormq.abc.AbstractChannel) -> None:
        """Stop handing them over."""
        self._tap.detach(channel.number)

    def write(self, frames: bytes) -> None:
        """Send whole frames now, or as soon as the socket takes them; nothing once the connection is lost."""
        if not self.lost.is_set() and not self._writer.is_closing():
            self._writer.write(frames)

    async def drain(self) -> None:
        """Wait until the socket has taken most of what was written."""
        try:
            await self._writer.drain()
        except BROKER_ERRORS as error:
            raise Unavailable(f"the connection to RabbitMQ broke: {error}") from error

    async def close(self) -> None:
        """Close it in an orderly way; what was unacknowledged goes back to its queue.

        Within seconds, whatever the broker does: under an alarm aiormq waits, cancelled or not, for a socket that takes
        no more, until that is gone.
        """
        closing = asyncio.ensure_future(self.amqp.close())
        try:
            await asyncio.wait((closing,), timeout=_CLOSE_SECONDS)
        finally:
            self.lost.set()
            closing.add_done_callback(_take_note)
            if not closing.done() or closing.cancelled() or closing.exception() is not None:
                self._writer.transport.abort()


async def connect(
    url: str, *, name: str, heartbeat: int = 10, within: float = 10
) -> BrokerConnection:
    """Open a connection that shows up in the broker under `name`, to any host that the URL names.

    Raises Unavailable where the broker cannot be reached now, Misconfigured where it refuses this user or virtual host.
    """
    candidates = addresses(url)
    failures: list[Unavailable | Misconfigured] = []
    # In random order, so that many workers spread over the nodes of a cluster.
    for candidate in random.sample(candidates, len(candidates)):
        try:
            return await _connect(candidate, name, heartbeat, within)
        except (Unavailable, Misconfigured) as error:
            failures.append(error)
    # A node that is starting may refuse what the others would not: one that is away leaves hope.
    hope = [failure for failure in failures if isinstance(failure, Unavailable)]
    if len(failures) == 1 or not hope:
        raise failures[0]
    raise Unavailable("; ".join(str(failure) for failure in failures))


async def _connect(url: str, name: str, heartbeat: int, within: float) -> BrokerConnection:
    """Open a connection to one host."""
    factory = _TapFactory()
    given = URL(url)
    chosen = given.query.get("heartbeat", str(heartbeat))  # what an operator asks for is granted
    target = given.update_query({"heartbeat": chosen, "name": name})
    connection = _TappedConnection(target, transport_factory=factory)
    opened = False
    try:
        async with asyncio.timeout(within):
            with no_cancellation_but_ours():
                await connection.connect()
        opened = True
    except (
        aiormq.exceptions.AuthenticationError,
        aiormq.exceptions.ProbableAuthenticationError,
    ) as error:
        raise Misconfigured(f"RabbitMQ at {place(url)} refused the user or password") from error
    except BROKER_ERRORS as error:
        if factory.writer is not None:
            factory.writer.transport.abort()
        if "OpenOk" in str(error) and "Close" in str(error):
            # aiormq keeps the broker's own words to itself: it wanted open-ok and got close.
            raise Misconfigured(
                f"RabbitMQ at {place(url)} has no such virtual host, or this user may not use it"
            ) from error
        raise Unavailable(
            f"RabbitMQ at {place(url)} cannot be reached: {str(error) or type(error).__name__}"
        ) from error
    finally:
        if (
            not opened
        ):  # else aio-pika would close it when it is collected, in whatever loop runs then
            with suppress(*BROKER_ERRORS), no_cancellation_but_ours():
                await connection.close()
    return BrokerConnection(connection, factory)


def _take_note(closed: "asyncio.Future[None]") -> None:
    """Retrieve the error of a connection that broke while it was closed: nobody else need hear of it."""
    if not closed.cancelled():
        closed.exception()


def _word(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
