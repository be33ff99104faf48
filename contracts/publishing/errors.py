"""What can go wrong between an agent and the database, each as an error whose text says what to do."""

from collections.abc import Sequence

from contracts.confirmation import REASONS, ErrorDetail

REMEDIES = {
    "undecodable": "Send UTF-8 JSON within the limits of contracts.limits",
    "invalid": "Correct the named members and publish the event again",
    "unknown_type": "Correct the type, or update the worker: docs/contracts.md lists the types",
    "unroutable": "Correct the type, or have the operator run 'worker topology apply' for its family",
    "conflict": "Publish it under a new key, or repeat the first content unchanged",
    "unstorable": "Correct the value that PostgreSQL names; the operator sees it with 'worker dead-letters show'",
    "delivery_limit": "Tell the operator: 'worker dead-letters show' has the message",
    "expired": "Publish it again, without an expiration or with a longer one",
    "dead_lettered": "Tell the operator: 'worker dead-letters show' has the broker's reason",
}
"""What the publisher can do about each reason of a rejection."""

_MAX_SHOWN = 10


class PublishingError(Exception):
    """An event could not be published, or its write was not confirmed."""

    hopeless = False
    """Whether trying again without a change elsewhere cannot help."""


class InvalidEvent(PublishingError):
    """An event breaks its contract and was not sent; `errors` has every place."""

    def __init__(self, event_type: str, errors: Sequence[ErrorDetail]) -> None:
        super().__init__(f"{event_type} was not sent: {_listed(errors)}")
        self.errors = tuple(errors)


class Rejected(PublishingError):
    """The worker found that an event can never be stored; it is kept whole as a dead letter."""

    def __init__(
        self, event_type: str, event_id: str, reason: str, errors: Sequence[ErrorDetail]
    ) -> None:
        meaning = REASONS.get(reason, "see the worker's documentation")
        remedy = REMEDIES.get(
            reason, "Tell the operator: 'worker dead-letters show' has the message"
        )
        found = f" {_listed(errors)}." if errors else ""
        super().__init__(
            f"{event_type} {event_id} was rejected as {reason}: {meaning}.{found} {remedy}."
        )
        self.reason = reason
        self.errors = tuple(errors)


class NotConnected(PublishingError):
    """The broker could not be reached, or it refused the connection."""


class Unroutable(PublishingError):
    """The exchange that takes events does not exist."""


class NotAccepted(PublishingError):
    """The broker refused an event, again and again."""


class NotConfirmed(PublishingError, TimeoutError):
    """The broker did not say in time that it has an event; it may have it all the same."""


class Unanswered(PublishingError, TimeoutError):
    """The broker has an event, and no worker said in time what became of it."""


class PublisherClosed(PublishingError):
    """The publisher is closed, or was never opened: use it in an `async with` block."""


def _listed(errors: Sequence[ErrorDetail]) -> str:
    shown = "; ".join(str(error) for error in errors[:_MAX_SHOWN])
    more = len(errors) - _MAX_SHOWN
    return f"{shown}; and {more} more" if more > 0 else shown
