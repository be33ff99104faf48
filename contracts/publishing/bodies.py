"""An event as it goes over the wire. Promises that what leaves here passes the contract, unless nobody wants it checked."""

from contracts.checking import check_body
from contracts.confirmation import ErrorDetail
from contracts.envelope import Event
from contracts.limits import MAX_BODY_BYTES
from contracts.publishing.errors import InvalidEvent


def checked_body(event: Event, *, validate: bool) -> bytes:
    """The event as JSON. Raises InvalidEvent with every error; a body over the limit is checked in any case."""
    try:
        body = event.to_json()
    except ValueError as error:
        text = f"it cannot be written as JSON: {error}"
        raise InvalidEvent(
            event.type, [ErrorDetail(loc=(), msg=text, type="json_unwritable")]
        ) from None
    if validate or len(body) > MAX_BODY_BYTES:
        errors = check_body(body)
        if errors:
            raise InvalidEvent(event.type, errors)
    return body
