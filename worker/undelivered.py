"""Messages that no family's pipeline took: unroutable ones, and those that the broker dead-lettered.

Promises that each becomes a dead letter with its whole body; where it was published to first is restored, so that a
replay goes there.
"""

from dataclasses import replace
from typing import Any

from contracts.confirmation import Reason
from contracts.limits import MAX_BODY_BYTES
from worker.body import parse
from worker.broker.topology import queue_name
from worker.content_encoding import Undecodable, unpack
from worker.decode import identify, reject
from worker.message import Decoded, Delivery, Rejected


def unroutable(delivery: Delivery) -> list[Decoded]:
    """A message from the alternate exchange: no family's queue is bound for its routing key."""
    text = (
        f"no queue is bound for the routing key {delivery.routing_key!r}: is it spelt as the type, "
        "is the family deployed, was 'worker topology apply' run?"
    )
    return [_rejected(delivery, "unroutable", text)]


def dead_lettered(delivery: Delivery) -> list[Decoded]:
    """A message that the broker dead-lettered, as it was before."""
    return [letter_of(delivery)]


def letter_of(
    delivery: Delivery, unknown: str = "the broker dead-lettered it, and it cannot be read why"
) -> Rejected:
    """The letter of a message that the broker dead-lettered; `unknown` is said where it does not say why."""
    death = _latest_death(delivery)
    cause = death.get("reason")
    reason: Reason
    match cause:
        case None:
            reason, text = "dead_lettered", unknown
        case "expired":
            reason, text = "expired", "its own AMQP expiration passed before a worker took it"
        case "delivery_limit":
            reason, text = "delivery_limit", "it was handed out more often than its queue allows"
        case _:
            reason, text = "dead_lettered", f"the broker dead-lettered it: {cause}"
    original = delivery
    match death:
        case {"exchange": str(exchange), "routing-keys": [str(routing_key), *_]}:
            original = replace(delivery, exchange=exchange, routing_key=routing_key)
    return _rejected(original, reason, text)


def family_of(delivery: Delivery, families: frozenset[str]) -> str | None:
    """The family whose queue a dead-lettered message died in; None where that was none of these."""
    queue = _latest_death(delivery).get("queue")
    return next((name for name in families if queue_name(name) == queue), None)


def _latest_death(delivery: Delivery) -> dict[str, Any]:
    deaths = (delivery.properties.headers or {}).get("x-death")
    if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict):
        return deaths[0]
    return {}


def _rejected(delivery: Delivery, reason: Reason, text: str) -> Rejected:
    errors = [("", text)]
    if delivery.fault:
        errors.append(("", f"AMQP property {delivery.fault}"))
    rejected = reject(delivery, reason, errors)
    try:
        raw, _ = parse(unpack(delivery.body, delivery.properties.content_encoding, MAX_BODY_BYTES))
    except Undecodable:
        return rejected
    identify(rejected, raw)
    return rejected
