"""`Publisher`: how an agent hands its events to RabbitMQ and learns that the database has them.

The one module of this package that needs more than pydantic: `pip install agent-persistence[client]`.
Owns AMQP: connecting, publisher confirms, and the direct reply-to queue that answers come back to. Promises that no
password is ever in a log or an error.
"""

import asyncio
import contextlib
import random
import uuid
from typing import Any, TypedDict, Unpack
from urllib.parse import unquote, urlsplit

import aio_pika
from aio_pika.abc import AbstractConnection, AbstractExchange, AbstractIncomingMessage
from aio_pika.exceptions import (
    CONNECTION_EXCEPTIONS,
    AuthenticationError,
    ChannelClosed,
    ChannelNotFoundEntity,
    DeliveryError,
    InvalidFrameError,
    ProbableAuthenticationError,
)

from contracts.publishing.addresses import addresses, place
from contracts.publishing.disconnections import no_cancellation_but_ours
from contracts.publishing.dispatch import Link, LinkLost, Nacked
from contracts.publishing.errors import (
    InvalidEvent,
    NotAccepted,
    NotConfirmed,
    NotConnected,
    PublisherClosed,
    PublishingError,
    Rejected,
    Unanswered,
    Unroutable,
)
from contracts.publishing.parcels import Parcel
from contracts.publishing.publisher import EventPublisher, OnReply
from contracts.publishing.task_events import TaskEvents

__all__ = [
    "EXCHANGE",
    "InvalidEvent",
    "NotAccepted",
    "NotConfirmed",
    "NotConnected",
    "Publisher",
    "PublisherClosed",
    "PublisherOptions",
    "PublishingError",
    "Rejected",
    "TaskEvents",
    "Unanswered",
    "Unroutable",
]

EXCHANGE = "agent.messages"
"""The topic exchange that takes every event; its routing key is the event's type."""

_REPLIES = "amq.rabbitmq.reply-to"
_CONNECT_SECONDS = 10
_CLOSE_SECONDS = 5
_NO_EXCHANGE = (
    f"the exchange {EXCHANGE} does not exist: have the operator run 'worker topology apply'"
)


class PublisherOptions(TypedDict, total=False):
    """The options of a Publisher; EventPublisher says what each does."""

    source: str
    tenant: str
    batch: bool
    linger: float
    max_batch_events: int
    max_batch_bytes: int
    replies: bool
    validate: bool
    timeout: float
    close_timeout: float
    max_unanswered: int
    max_unanswered_bytes: int


class Publisher(EventPublisher):
    """Publishes events to RabbitMQ and waits for their writes.

    async with Publisher("amqp://…", source="/agents/infra-1") as publisher:
        event = publisher.event(TaskCreated(task_id=uuid7(), request_text="…"))
        await publisher.publish(event)  # the broker has it
        await publisher.persisted(event)  # the database has it
    """

    def __init__(
        self, url: str, *, user_id: str | None = None, **options: Unpack[PublisherOptions]
    ) -> None:
        """`user_id`: the user of the connection, where workers ask who published (WORKER_TENANT_OF_USER)."""
        broker = _Broker(url, f"publisher {options.get('source', '')}".strip(), user_id)
        super().__init__(broker.open, **options)


class _Broker:
    """Where the broker is, and how to open a link to it."""

    def __init__(self, url: str, name: str, user_id: str | None = None) -> None:
        self._name = name
        self._user_id = user_id
        try:
            self._urls = addresses(url)
        except ValueError:
            self._urls = ()
        if not self._urls or not all(urlsplit(single).hostname for single in self._urls):
            raise ValueError("the URL must look like amqp://user:password@host:5672/vhost")

    async def open(self, on_reply: OnReply) -> Link:
        """Connect to any host of the URL, and listen for replies."""
        failures: list[NotConnected] = []
        # In random order, so that many agents spread over the nodes of a cluster.
        for url in random.sample(self._urls, len(self._urls)):
            try:
                return await self._open(url, on_reply)
            except NotConnected as error:
                failures.append(error)
        if len(failures) == 1:
            raise failures[0]
        found = NotConnected("; ".join(str(failure) for failure in failures))
        found.hopeless = all(failure.hopeless for failure in failures)
        raise found

    async def _open(self, url: str, on_reply: OnReply) -> Link:
        connection = aio_pika.Connection(
            aio_pika.connection.make_url(url),
            client_properties={"connection_name": self._name},
        )
        try:
            with no_cancellation_but_ours():
                await connection.connect(timeout=_CONNECT_SECONDS)
                return await self._prepare(connection, on_reply)
        except BaseException as error:
            await _close(connection)
            if isinstance(error, ChannelNotFoundEntity):
                missing = Unroutable(_NO_EXCHANGE)
                missing.hopeless = True
                raise missing from None
            if isinstance(error, CONNECTION_EXCEPTIONS):
                raise _not_connected(url, error) from None
            raise

    async def _prepare(self, connection: AbstractConnection, on_reply: OnReply) -> Link:
        async def take(message: AbstractIncomingMessage) -> None:
            on_reply(message.body, message.correlation_id or "")

        channel = await connection.channel()  # with publisher confirms
        exchange = await channel.get_exchange(EXCHANGE)
        replies = await channel.get_queue(_REPLIES, ensure=False)
        await replies.consume(take, no_ack=True)
        link = _AmqpLink(connection, exchange, self._user_id)
        connection.close_callbacks.add(link.on_closed)
        channel.close_callbacks.add(link.on_closed)
        if channel.is_closed:
            link.lost.set()
        return link


def _not_connected(url: str, error: BaseException) -> NotConnected:
    """What is wrong, without what the URL says about who we are."""
    text = str(error) or type(error).__name__
    # The library's words for what the broker says while it opens a connection.
    if "Connection.Close" in text:
        text = "the broker has no such virtual host, or does not open it to this user"
    password = urlsplit(url).password
    for secret in (password, unquote(password)) if password else ():
        text = text.replace(secret, "******")
    where = place(url).partition("/")[0]
    found = NotConnected(f"no connection to RabbitMQ at {where}: {text}")
    refused = AuthenticationError | ProbableAuthenticationError | InvalidFrameError
    found.hopeless = isinstance(error, refused)
    return found


class _AmqpLink:
    """One connection with one channel, on which parcels leave and replies come."""

    def __init__(
        self, connection: AbstractConnection, exchange: AbstractExchange, user_id: str | None
    ) -> None:
        self.lost = asyncio.Event()
        self._user_id = user_id
        self._connection = connection
        self._exchange = exchange

    def on_closed(self, *_: Any) -> None:
        """The connection or the channel was closed, by whomever."""
        self.lost.set()

    async def send(self, parcel: Parcel) -> None:
        """Publish, and wait for the broker's confirm."""
        message = aio_pika.Message(
            parcel.body,
            content_type=parcel.content_type,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            # Fresh for every publish: aiormq finds the publish that a return belongs to by it.
            message_id=uuid.uuid4().hex,
            correlation_id=parcel.correlation_id,
            reply_to=_REPLIES if parcel.asked else None,
            user_id=self._user_id,
        )
        try:
            # Not mandatory: what no queue takes goes to the alternate exchange, and is a dead letter.
            with no_cancellation_but_ours():
                await self._exchange.publish(message, parcel.routing_key, mandatory=False)
        except DeliveryError as error:
            raise Nacked(type(error.frame).__name__) from None
        except ChannelNotFoundEntity:
            raise LinkLost(Unroutable(_NO_EXCHANGE)) from None
        except ChannelClosed as error:
            raise LinkLost(NotAccepted(f"the broker refused it: {error}")) from None
        except CONNECTION_EXCEPTIONS:
            raise LinkLost from None
        except Exception as error:  # noqa: BLE001 (a frame that cannot be built must fail its event, not hang it)
            raise NotAccepted(f"it cannot be sent: {error}") from None

    async def close(self) -> None:
        """Close the connection, however it is."""
        self.lost.set()
        await _close(self._connection)


async def _close(connection: AbstractConnection) -> None:
    with contextlib.suppress(*CONNECTION_EXCEPTIONS):
        async with asyncio.timeout(_CLOSE_SECONDS):
            with no_cancellation_but_ours():
                await connection.close()
