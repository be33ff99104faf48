"""What agents and the worker agree on: event contracts, envelope, confirmations. Imports pydantic only."""

from contracts.checking import check
from contracts.confirmation import ErrorDetail, Outcome, PersistenceConfirmed, Reason
from contracts.envelope import Envelope, Event, EventData
from contracts.identifiers import uuid7

__all__ = [
    "Envelope",
    "ErrorDetail",
    "Event",
    "EventData",
    "Outcome",
    "PersistenceConfirmed",
    "Reason",
    "check",
    "uuid7",
]
