"""Messages that nobody should publish, each with the reason for which the worker will keep it as a dead letter.

They go to the broker as raw bytes: the client would refuse most of them.
"""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from contracts.client import EXCHANGE
from contracts.confirmation import Reason
from contracts.envelope import CONTENT_TYPE, Event
from contracts.identifiers import uuid7
from worker.broker.connection import BrokerConnection
from worker.broker.publisher import Answer, ConfirmedPublisher
from worker.errors import Unavailable

SOURCE = "/agents/careless"


@dataclass(frozen=True)
class Mistake:
    """One bad message, where it is published to, and what it will be refused for."""

    routing_key: str
    body: bytes
    reason: Reason


def mistakes(stored: Sequence[Event]) -> Iterator[Mistake]:
    """One bad message of each kind for every event given; these must be stored before the first one is published."""
    for event in stored:
        good = json.loads(event.to_json())
        yield _of(good, "invalid", data={**good["data"], "step_number": -1, "mood": "sleepy"})
        yield _of(good, "unknown_type", type="execution.daydreamed")
        yield _of(good, "unroutable", type="weather.observed")
        yield Mistake(
            "execution.logged", f'{{"id": "{uuid7()}", "type": "exec'.encode(), "undecodable"
        )
        changed = {**good["data"], "action": "says that it did something else"}
        yield _of(good, "conflict", id=good["id"], data=changed)


async def publish(connection: BrokerConnection, bad: Sequence[Mistake]) -> None:
    """Publish them; returns when the broker has them all. Raises Unavailable where it did not take one."""
    publisher = await ConfirmedPublisher.open(connection)
    answers = [
        publisher.publish(EXCHANGE, mistake.routing_key, mistake.body, content_type=CONTENT_TYPE)
        for mistake in bad
    ]
    await publisher.drain()
    refused = [answer for answer in await asyncio.gather(*answers) if answer is not Answer.ACCEPTED]
    await publisher.close()
    if refused:
        raise Unavailable(f"RabbitMQ did not take {len(refused)} messages: {refused[0].value}")


def _of(event: dict[str, Any], reason: Reason, **changes: Any) -> Mistake:
    """The event with an id and source of its own and these changes."""
    body = {**event, "id": str(uuid7()), "source": SOURCE, **changes}
    return Mistake(body["type"], json.dumps(body).encode(), reason)
