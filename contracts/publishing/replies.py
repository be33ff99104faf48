"""What workers answer, read and handed to the ledger. Promises that a reply which cannot be read harms no call."""

import logging

from pydantic import ValidationError

from contracts.confirmation import PersistenceConfirmed
from contracts.envelope import Envelope
from contracts.publishing.ledger import Ledger

_log = logging.getLogger("contracts.client")


def settle_reply(ledger: Ledger, body: bytes, correlation_id: str) -> None:
    """Give every event that a reply names its answer; log a rejection that nobody waits for, without the event."""
    try:
        envelope = Envelope.model_validate_json(body)
        confirmation = PersistenceConfirmed.model_validate(envelope.data)
    except ValidationError as error:
        _log.warning(
            "a reply of %d bytes was not understood: %d errors", len(body), error.error_count()
        )
        return
    for pending, answer in ledger.settle(confirmation, correlation_id):
        if answer.outcome == "rejected" and not pending.watchers:
            _log.warning(
                "%s %s was rejected as %s; it is kept as a dead letter",
                pending.type,
                pending.key[1],
                answer.reason,
            )
