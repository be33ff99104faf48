"""Events of a caller who waits, stored as messages are: the same contracts, the same statements, one transaction.

Decoding, the writer of all tables, the loss ledger and the outbox are the worker's own, so the fold stays the only
writer, a repetition is a duplicate, and who listens to confirmations hears of these events too. Unlike a message, an
event that is refused makes no dead letter: the caller is told, and the transaction is rolled back.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from contracts.envelope import Event
from contracts.registry import contract_types
from worker import families
from worker.decode import Decoder
from worker.errors import Invalid
from worker.message import Accepted, Delivery, Message, Outcome, Properties, Rejected
from worker.repositories.errors import OutOfScope, Refused
from worker.store import loss_ledger, outbox
from worker.store.database import translate
from worker.store.foreign_keys import CHECK_NOW
from worker.store.outbox import ReplyRule
from worker.store.writer import Writer

_NO_REPLIES = ReplyRule("", lambda: None)


async def store(
    connection: AsyncConnection, events: Sequence[Event], tenant: str
) -> list[Accepted]:
    """Store these events in the open transaction; one outcome for each, in no particular order.

    Raises OutOfScope for an event of another tenant and Refused for one that cannot be stored: then roll back.
    """
    messages = [_message(event, tenant) for event in events]
    driver = await _driver(connection)
    try:
        outcomes = await _writer().write(driver, messages)
        # Here the caller can be told; and what the events name stays until the commit.
        await driver.execute(CHECK_NOW)
        accepted = [_accepted(outcome) for outcome in outcomes]
        await loss_ledger.record(driver, accepted)
        for family, settled in _by_family(accepted).items():
            await outbox.write(driver, family, outbox.payload(settled, _NO_REPLIES))
    except Exception as error:
        meant = translate(error)
        if isinstance(meant, Invalid):
            raise _refused("unstorable", f"PostgreSQL refused the row: {meant}") from error
        raise meant from error
    return accepted


def _message(event: Event, tenant: str) -> Message:
    """The event as the pipeline would have it."""
    if event.tenantid != tenant:
        raise OutOfScope(
            f"the event {event.id} is of the tenant {event.tenantid!r}, not of {tenant!r}"
        )
    family, _ = contract_types().get(event.type, (None, None))
    if family is None:
        raise _refused("unknown_type", f"{event.type!r} is not a type of any family")
    delivery = Delivery(
        family=family.name,
        tag=0,
        redelivered=False,
        exchange="",
        routing_key=event.type,
        body=event.to_json(),
        properties=Properties(),
        properties_raw=b"",
    )
    [decoded] = _decoder(family.name).decode(delivery)
    if isinstance(decoded, Rejected):
        raise Refused(decoded.reason, decoded.errors)
    return decoded


def _accepted(outcome: Outcome) -> Accepted:
    if isinstance(outcome, Rejected):
        raise Refused(outcome.reason, outcome.errors)
    return outcome


def _refused(reason: str, text: str) -> Refused:
    return Refused(reason, [{"loc": [], "msg": text, "type": reason}])


def _by_family(accepted: Sequence[Accepted]) -> dict[str, list[Accepted | Rejected]]:
    found: dict[str, list[Accepted | Rejected]] = defaultdict(list)
    for one in accepted:
        found[one.message.delivery.family].append(one)
    return found


async def _driver(connection: AsyncConnection) -> Any:
    """The driver's own connection, within the transaction that SQLAlchemy has begun."""
    raw = await connection.get_raw_connection()
    return raw.driver_connection


@cache
def _writer() -> Writer:
    return Writer(families.plan())


@cache
def _decoder(family: str) -> Decoder:
    return Decoder(families.families()[family].contract)
