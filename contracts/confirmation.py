"""What the worker tells about messages after the transaction that holds them has committed.

Owns the `persistence.confirmed` event, which agents read from the exchange `agent.confirmations` or from the queue
that their message named in `reply_to`. It belongs to no family: no worker takes it from a queue.
Readers must skip members that they do not know: later versions may add some.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from contracts.envelope import EventData
from contracts.fields import Text, Timestamp

EXCHANGE = "agent.confirmations"
"""The topic exchange of confirmations; the routing key is `<family>.<outcome>.<tenant>`."""


Outcome = Literal["persisted", "duplicate", "rejected"]
"""What became of a message.

persisted: it is in the database. duplicate: it was there already, with the same content, and nothing was written.
rejected: it cannot be stored, and is kept whole as a dead letter.
"""

Reason = Literal[
    "undecodable",
    "invalid",
    "unknown_type",
    "unroutable",
    "conflict",
    "unstorable",
    "delivery_limit",
    "expired",
    "dead_lettered",
]
"""Why a message was rejected; REASONS says what each means."""

REASONS: Mapping[str, str] = {
    "undecodable": "it is not JSON, over a limit, in a bad encoding, or has AMQP properties that cannot be read",
    "invalid": "it breaks the envelope's rules or the contract of its type",
    "unknown_type": "the family that its routing key belongs to has no such type",
    "unroutable": "no queue is bound for its routing key",
    "conflict": "its key is stored already, with other content",
    "unstorable": "PostgreSQL refused its row",
    "delivery_limit": "it ended workers that handled it alone",
    "expired": "its own AMQP expiration passed before a worker took it",
    "dead_lettered": "the broker dead-lettered it for a reason of its own",
}
"""What each reason means, to be read after "the message was rejected: "."""


class ErrorDetail(BaseModel):
    """One error of a rejected message: where, what, and of which kind."""

    model_config = ConfigDict(frozen=True, strict=True)

    loc: Annotated[tuple[str | int, ...], Field(strict=False)] = Field(
        description="the way to the member, such as data, steps, 3, state"
    )
    msg: str = Field(description="what is wrong, in words")
    type: str = Field(description="the kind of error, for programs")

    def __str__(self) -> str:
        path = ".".join(str(part) for part in self.loc)
        return f"{path}: {self.msg}" if path else self.msg


class ConfirmedItem(BaseModel):
    """One message of a confirmation. What could not be read of an undecodable message is null."""

    model_config = ConfigDict(frozen=True, strict=True)

    id: str | None = Field(None, description="the message's id")
    type: str | None = Field(None, description="the message's type")
    key: str | None = Field(
        None, description="its idempotency key; the two of a pair are joined by a slash"
    )
    source: str | None = Field(None, description="the message's source")
    reason: str | None = Field(
        None, description="why it was rejected: a Reason, or one that a later version added"
    )
    errors: list[ErrorDetail] | None = Field(
        None, description="at most 100 errors of a rejected message"
    )


class PersistenceConfirmed(EventData):
    """Messages of one family, outcome and tenant that one transaction settled.

    `items` is a list of objects {"id", "type", "key", "source"}; rejected ones have "reason" and "errors" too.
    """

    model_config = ConfigDict(extra="ignore")

    event_type = "persistence.confirmed"

    family: Text = Field(description="the family whose queue the messages came from")
    outcome: Outcome = Field(description="what became of the messages")
    tenant: Text = Field(description="the tenant; default where it could not be read")
    worker: str = Field(description="the worker that settled them")
    committed_at: Timestamp = Field(description="when the transaction had committed")
    items: list[ConfirmedItem] = Field(description="the messages")


def routing_key(family: str, outcome: Outcome, tenant: str) -> str:
    """The routing key of a confirmation on the exchange of confirmations."""
    return f"{family}.{outcome}.{tenant}"
