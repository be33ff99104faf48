"""Numbers for the loss ledger: CloudEvents' `sequence`, counted within an `epoch` that begins with the publisher.

Owns which number an event has. Promises that the numbers of a source have no gap that this publisher made by itself
(only what is really sent takes one), and that an event which is sent again has the number that it had. With them
`worker reconcile` can say which events never arrived.
"""

from collections import OrderedDict
from dataclasses import dataclass
from uuid import UUID

from contracts.envelope import Event
from contracts.identifiers import uuid7
from contracts.limits import MAX_BODY_BYTES

_LARGEST_STAMP = len(f'"sequence":"{"9" * 18}","epoch":"{UUID(int=0)}",')


@dataclass(frozen=True, slots=True)
class Published:
    """How far one source of one tenant has come: the last number that it has used in an epoch."""

    tenantid: str
    source: str
    epoch: UUID
    sequence: int


class Numbering:
    """The numbers of one publisher, counted for each tenant and source; `remembered` events keep theirs."""

    def __init__(self, remembered: int) -> None:
        self.epoch = uuid7()
        self._remembered = remembered
        self._last: dict[tuple[str, str], int] = {}
        self._numbers: OrderedDict[tuple[str, str, UUID], int] = OrderedDict()

    def stamp(self, event: Event, body: bytes) -> bytes:
        """What comes before the members of the event's body on the wire; nothing where the event is left as it is.

        That is an event with a sequence or an epoch of its own, and one that its number would make too large.
        """
        if event.sequence is not None or event.epoch is not None:
            return b""
        if len(body) + _LARGEST_STAMP > MAX_BODY_BYTES:
            return b""
        number = self._number(event)
        return f'"sequence":"{number}","epoch":"{self.epoch}",'.encode()

    def last(self, tenant: str, source: str) -> int:
        """The last number that a source has used; 0 before its first event."""
        return self._last.get((tenant, source), 0)

    def published(self) -> list[Published]:
        """How far every source has come."""
        return [
            Published(tenant, source, self.epoch, last)
            for (tenant, source), last in self._last.items()
        ]

    def _number(self, event: Event) -> int:
        counted = (event.tenantid, event.source)
        key = (*counted, event.id)
        number = self._numbers.get(key)
        if number is None:
            number = self._last[counted] = self._last.get(counted, 0) + 1
            if len(self._numbers) >= self._remembered:
                self._numbers.popitem(last=False)
            self._numbers[key] = number
        else:
            self._numbers.move_to_end(key)
        return number
