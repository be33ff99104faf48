"""A message on its way to the broker, what became of it, and the channel that hears the replies to it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from contracts.publishing.disconnections import no_cancellation_but_ours
from worker.broker.connection import BROKER_ERRORS
from worker.broker.properties import parse
from worker.broker.publisher import ConfirmedPublisher
from worker.errors import Unavailable

REPLIES = "amq.rabbitmq.reply-to"
"""RabbitMQ's direct reply-to."""


class Fate(Enum):
    """How a message ended: the broker has it, no queue took it, or it cannot be had by the broker at all."""

    ACCEPTED = "accepted"
    RETURNED = "returned"
    REFUSED = "refused"


@dataclass(slots=True, eq=False)
class Outgoing:
    """A message to send, and what became of it. `number` is its correlation id where answers are asked for."""

    exchange: str
    routing_key: str
    body: bytes
    content_type: str | None = None
    content_encoding: str | None = None
    headers: dict[str, str] | None = None
    number: int = 0
    fate: Fate | None = None
    why: str = ""
    accepted: bool = False
    refusals: int = 0
    channel: int = 0


OnReply = Callable[[Outgoing, bytes], None]
"""Takes a message and the body of a reply to it."""


class SendingChannel(ConfirmedPublisher):
    """A channel that hands on replies, and says when it ends."""

    on_end: Callable[[], None] | None = None
    on_reply: Callable[[int, bytes], None] | None = None

    async def ask_for_replies(self) -> None:
        """Consume the direct replies to what is published here: they come back on the same channel only."""
        try:
            with no_cancellation_but_ours():
                await self._channel.basic_consume(REPLIES, _untapped, no_ack=True)
        except BROKER_ERRORS as error:
            raise Unavailable(f"RabbitMQ refused direct replies: {error}") from error

    def fits(self, size: int) -> bool:  # noqa: ARG002 (a reply is at most 1 MiB)
        """Replies are always taken."""
        return True

    def delivered(self, method: bytes, header: bytes, body: bytes | None) -> None:  # noqa: ARG002 (the sink's signature)
        """Hand on a reply."""
        properties, _ = parse(header)
        number = properties.correlation_id or ""
        if self.on_reply is not None and body is not None and number.isdecimal():
            self.on_reply(int(number), body)

    def _end(self) -> None:
        super()._end()
        if self.on_end is not None:
            self.on_end()


async def _untapped(message: object) -> None:
    """A reply that reached aiormq although its channel is tapped: never, or the tap is broken."""
    raise RuntimeError(f"a reply went past the tap: {type(message).__name__}")
