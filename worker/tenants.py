"""Who may write for which tenant, where RabbitMQ says who published: `WORKER_TENANT_OF_USER`.

RabbitMQ lets the property `user_id` through only if it is the user of the connection, so it can be believed where
`tenantid` cannot. Promises that an event which claims a tenant that its user may not write for is rejected, each event
of a batch by itself, and that nothing of it (dead letter, confirmation, number for the loss ledger) counts as that
tenant's, for whatever reason it is rejected.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from contracts.limits import MAX_BODY_BYTES
from worker.body import dump, parse
from worker.content_encoding import unpack
from worker.message import Decoded, Delivery, Message, Number, Rejected

Decode = Callable[[Delivery], Sequence[Decoded]]

_PLACE = "{tenant}"
_ANY = "*"


class TenantOfUser:
    """The rules of the setting, such as `agents-{tenant}`, `billing=acme` and `agents-operator=*`."""

    def __init__(self, rules: Sequence[str]) -> None:
        self._patterns = [rule for rule in rules if _PLACE in rule]
        self._users = [tuple(rule.rsplit("=", 1)) for rule in rules if _PLACE not in rule]

    def may_write(self, user: str | None, tenant: str) -> bool:
        """Whether this user may write for this tenant; nobody may who is not named."""
        if not user:
            return False
        return any(rule.replace(_PLACE, tenant) == user for rule in self._patterns) or any(
            name == user and allowed in (tenant, _ANY) for name, allowed in self._users
        )

    def checked(self, decode: Decode, max_body_bytes: int = MAX_BODY_BYTES) -> Decode:
        """The same decoding, with what claims another's tenant rejected."""

        def decode_and_check(delivery: Delivery) -> Sequence[Decoded]:
            items = decode(delivery)
            user = delivery.properties.user_id
            if all(_claims(item) and self.may_write(user, item.tenant or "") for item in items):
                return items
            strangers = [
                item
                for item in items
                if isinstance(item, Message) and not self.may_write(user, item.tenant)
            ]
            bodies = _bodies(delivery, strangers, max_body_bytes)
            return [self._checked(item, user, bodies) for item in items]

        return decode_and_check

    def _checked(self, item: Decoded, user: str | None, bodies: dict[int, bytes]) -> Decoded:
        if isinstance(item, Message):
            return item if self.may_write(user, item.tenant) else _rejected(item, user, bodies)
        mine: list[Number] = [one for one in item.numbers if self.may_write(user, one.tenant)]
        allowed = item.tenant is not None and self.may_write(user, item.tenant)
        return replace(item, tenant=item.tenant if allowed else None, numbers=mine)


def _claims(item: Decoded) -> bool:
    """Whether all that an item says is of the one tenant that it names."""
    return item.tenant is not None and (
        isinstance(item, Message) or all(one.tenant == item.tenant for one in item.numbers)
    )


def _bodies(
    delivery: Delivery, strangers: Sequence[Message], max_body_bytes: int
) -> dict[int, bytes]:
    """Of a batch, the events that are rejected, as their dead letters keep them; it was decoded before, so it can be."""
    wanted = [item.index for item in strangers if item.index is not None]
    if not wanted:
        return {}
    events: Any
    events, _ = parse(unpack(delivery.body, delivery.properties.content_encoding, max_body_bytes))
    return {index: dump(events[index]) for index in wanted}


def _rejected(message: Message, user: str | None, bodies: dict[int, bytes]) -> Rejected:
    """An event that claims a tenant which is not its publisher's."""
    whose = f"the user {user!r} may not" if user else "without the AMQP property user_id nobody may"
    told = f"{whose} publish for the tenant {message.tenant!r} (WORKER_TENANT_OF_USER)"
    index = message.index
    return Rejected(
        message.delivery,
        index,
        "invalid",
        [{"loc": ["tenantid"], "msg": told, "type": "invalid"}],
        message.delivery.body if index is None else bodies[index],
        type=message.type,
        id=str(message.id),
        key=str(message.id),
        source=message.source,
    )
