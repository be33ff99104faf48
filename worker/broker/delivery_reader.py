"""From the payloads of a delivery's frames to a Delivery.

Promises a Delivery for any bytes: what cannot be read is its `fault`. Layout: AMQP 0-9-1 specification, basic.deliver.
"""

from worker.broker.properties import parse
from worker.message import Delivery

_MOST_ADDRESSES = 1000


class DeliveryReader:
    """Reads the deliveries of one channel; remembers its consumers, and addresses, since few differ."""

    def __init__(self) -> None:
        self._families: dict[bytes, str] = {}
        self._addresses: dict[bytes, tuple[str, str, str | None]] = {}

    def know(self, consumer_tag: str, family: str) -> None:
        """What this consumer is given is this family's."""
        self._families[consumer_tag.encode()] = family

    @staticmethod
    def tag(method: bytes) -> int:
        """The delivery tag in the payload of a method frame."""
        at = 5 + method[4]
        return int.from_bytes(method[at : at + 8])

    def read(self, method: bytes, header: bytes, body: bytes) -> Delivery:
        """The delivery that these payloads are."""
        tag_at = 5 + method[4]
        exchange, routing_key, address_fault = self._address(method[tag_at + 9 :])
        properties, fault = parse(header)
        return Delivery(  # by position, in the order of its fields: names cost a fifth of the reading
            self._families[method[5:tag_at]],
            int.from_bytes(method[tag_at : tag_at + 8]),
            bool(method[tag_at + 8] & 1),
            exchange,
            routing_key,
            body,
            properties,
            header,
            fault or address_fault,
        )

    def _address(self, raw: bytes) -> tuple[str, str, str | None]:
        """Exchange and routing key, and what is wrong with them where something is."""
        known = self._addresses.get(raw)
        if known is None:
            end = 1 + raw[0]
            exchange, exchange_fault = _name(raw[1:end])
            routing_key, key_fault = _name(raw[end + 1 :])
            known = exchange, routing_key, exchange_fault or key_fault
            if len(self._addresses) < _MOST_ADDRESSES:
                self._addresses[raw] = known
        return known


def _name(raw: bytes) -> tuple[str, str | None]:
    """An exchange name or routing key as text, and what is wrong with it where something is."""
    try:
        return raw.decode(), None
    except UnicodeDecodeError:
        return raw.decode(errors="replace"), "exchange or routing key: not UTF-8"
