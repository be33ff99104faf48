"""Every exchange, queue and binding that the worker needs, as data; applying and checking them.

Owns the names and arguments of the wire (design page WIRE, "Queues"). Promises: `apply` changes nothing where an
existing part differs, and says which argument; `check` changes nothing ever.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiormq

from contracts.publishing.disconnections import no_cancellation_but_ours
from contracts.registry import ContractFamily
from worker.broker.connection import BROKER_ERRORS, BrokerConnection
from worker.errors import Misconfigured, Unavailable

MESSAGES = "agent.messages"
UNROUTED = "agent.unrouted"
DEAD_LETTERS = "agent.dead-letters"
CONFIRMATIONS = "agent.confirmations"
UNROUTED_FAMILY = "unrouted"
DEAD_LETTER_FAMILY = "dead-letter"

_QUORUM = {
    "x-queue-type": "quorum",
    # From 4.0 the default of 20 counts lost connections and would dead-letter innocents in a long outage;
    # -1 drops a message at its first return on 3.10.
    "x-delivery-limit": 1_000_000,
    "x-consumer-timeout": 24 * 60 * 60 * 1000,
}


@dataclass(frozen=True)
class Exchange:
    """An exchange as it has to be."""

    name: str
    type: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Queue:
    """A queue as it has to be, with the exchange and routing keys that it is bound to."""

    name: str
    exchange: str
    routing_keys: tuple[str, ...]
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Topology:
    """All of it, in the order in which it can be declared."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]

    @property
    def parts(self) -> tuple["Exchange | Queue", ...]:
        """Exchanges first: queues are bound to them."""
        return (*self.exchanges, *self.queues)


def queue_name(family: str) -> str:
    """The queue that a family's messages wait in."""
    return f"worker.{family}"


def dead_letter_queue_name(family: str) -> str:
    """The queue that the broker's own dead letters of a family wait in."""
    return f"worker.{family}.dead-letters"


def topology(families: Iterable[ContractFamily]) -> Topology:
    """What these families, the unrouted messages and the broker's dead letters need."""
    queues: list[Queue] = []
    for family in families:
        queues += _with_dead_letters(family.name, MESSAGES, family.routing_keys)
    queues += _with_dead_letters(UNROUTED_FAMILY, UNROUTED, ("#",))
    return Topology(
        exchanges=(
            Exchange(UNROUTED, "fanout"),
            Exchange(MESSAGES, "topic", {"alternate-exchange": UNROUTED}),
            Exchange(DEAD_LETTERS, "topic"),
            Exchange(CONFIRMATIONS, "topic"),
        ),
        queues=tuple(queues),
    )


def _with_dead_letters(family: str, exchange: str, routing_keys: tuple[str, ...]) -> list[Queue]:
    arguments = {
        **_QUORUM,
        "x-dead-letter-exchange": DEAD_LETTERS,
        "x-dead-letter-routing-key": family,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    return [
        Queue(dead_letter_queue_name(family), DEAD_LETTERS, (family,), dict(_QUORUM)),
        Queue(queue_name(family), exchange, routing_keys, arguments),
    ]


async def check(connection: BrokerConnection, wanted: Topology) -> list[str]:
    """What is missing or differs, a sentence each; empty where all is as it should be, as far as this user may know."""
    problems = []
    for part in wanted.parts:
        exists = await _exists(connection, part)
        if exists is False:
            problems.append(f"{_label(part)} is missing")
        elif exists and (difference := await _difference(connection, part)):
            problems.append(difference)
    return problems


async def apply(connection: BrokerConnection, wanted: Topology) -> list[str]:
    """Declare what is missing and bind every queue; returns the names of what was new.

    Raises Misconfigured, with nothing changed, where something exists in another form.
    """
    missing: list[Exchange | Queue] = []
    differences = []
    for part in wanted.parts:
        if not await _exists(connection, part):
            missing.append(part)
        elif difference := await _difference(connection, part):
            differences.append(difference)
    if differences:
        raise Misconfigured(
            "nothing was changed, because what exists differs: "
            + "; ".join(differences)
            + ". Remove or rename it (after emptying it), or change it back, then run 'worker topology apply' again"
        )
    for part in missing:
        if refusal := await _declare(connection, part):
            raise Misconfigured(f"RabbitMQ refused to make the {_label(part)}: {refusal}")
    await _bind(connection, wanted.queues)
    return [_label(part) for part in missing]


async def message_count(connection: BrokerConnection, queue: str) -> int | None:
    """How many messages wait in a queue, not counting those in hand; None where there is no such queue."""
    counts = await queue_counts(connection, queue)
    return None if counts is None else counts[0]


async def queue_counts(connection: BrokerConnection, queue: str) -> tuple[int, int] | None:
    """Waiting messages and attached consumers of a queue; None where there is no such queue."""
    channel = await connection.channel()
    try:
        with no_cancellation_but_ours():
            answer = await channel.queue_declare(queue, passive=True)
            await channel.close()
    except aiormq.exceptions.ChannelNotFoundEntity:
        return None
    except BROKER_ERRORS as error:
        raise Unavailable(f"RabbitMQ did not answer: {error}") from error
    return answer.message_count or 0, answer.consumer_count or 0


async def exchange_exists(connection: BrokerConnection, name: str) -> bool:
    """Whether there may be an exchange of this name; the default exchange always is there."""
    return not name or await _exists(connection, Exchange(name, "topic")) is not False


async def _exists(connection: BrokerConnection, part: Exchange | Queue) -> bool | None:
    """Whether a part exists; None where RabbitMQ does not tell this user, who (from 4.3) has no permission on it at all."""
    refusal = await _declare(connection, part, passive=True)
    return None if isinstance(refusal, aiormq.exceptions.ChannelAccessRefused) else refusal is None


async def _difference(connection: BrokerConnection, part: Exchange | Queue) -> str | None:
    """How an existing part differs from what is wanted: declaring what exists changes nothing, but is compared."""
    refusal = await _declare(connection, part)
    if refusal is None or isinstance(refusal, aiormq.exceptions.ChannelAccessRefused):
        return None  # a user who may not declare cannot compare; that it exists was seen
    text = str(refusal)
    found = re.search(r"inequivalent arg '([^']+)'.*?: received (.+?) but current is (.+)", text)
    if not found:
        return f"{_label(part)} differs: {text}"
    argument, ours, theirs = found.groups()
    return f"{_label(part)} has {argument} {theirs.strip()}, wanted is {ours.strip()}"


async def _declare(
    connection: BrokerConnection, part: Exchange | Queue, *, passive: bool = False
) -> BaseException | None:
    """Declare a part on a channel of its own; the broker's refusal, if it refuses."""
    channel = await connection.channel()
    try:
        with no_cancellation_but_ours():
            if isinstance(part, Exchange):
                await channel.exchange_declare(
                    part.name,
                    exchange_type=part.type,
                    durable=True,
                    passive=passive,
                    arguments=part.arguments,
                )
            else:
                await channel.queue_declare(
                    part.name, durable=True, passive=passive, arguments=part.arguments
                )
            await channel.close()
    except (
        aiormq.exceptions.ChannelNotFoundEntity,
        aiormq.exceptions.ChannelPreconditionFailed,
        aiormq.exceptions.ChannelAccessRefused,
    ) as refusal:
        return refusal
    except BROKER_ERRORS as error:
        raise Unavailable(f"RabbitMQ did not answer: {error}") from error
    return None


async def _bind(connection: BrokerConnection, queues: Sequence[Queue]) -> None:
    channel = await connection.channel()
    try:
        with no_cancellation_but_ours():
            for queue in queues:
                for routing_key in queue.routing_keys:
                    await channel.queue_bind(queue.name, queue.exchange, routing_key=routing_key)
            await channel.close()
    except BROKER_ERRORS as error:
        raise Unavailable(f"RabbitMQ did not take a binding: {error}") from error


def _label(part: Exchange | Queue) -> str:
    return f"{'exchange' if isinstance(part, Exchange) else 'queue'} {part.name}"
