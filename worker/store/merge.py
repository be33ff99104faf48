"""Order-free merging: folding any permutation of an entity's messages, with any duplication, ends in the same row.

Each column (or group) is a register that is won by the largest clock. A clock is text of fixed width, compared byte by
byte: attempt, rank (of a status), the event's time, the message's id. `fold_batch` folds per key; merge_sql.py has
the same rule for PostgreSQL, between a folded batch and the stored row. Both follow from one declaration and a
property test holds them together.
Rules: design page DATA_MODEL, "Merging is order-free".
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson

from worker.message import Message
from worker.store.bulk import column_value
from worker.store.declaration import Entity, Fold

ABOVE_ALL = 9_999_999_999
"""The attempt of an end that names none: larger than every attempt."""

_ATTEMPT = slice(0, 10)
_TIME = slice(12, 38)


def clock(attempt: int, rank: int, now: str) -> str:
    """When, in the order that decides: 70 characters; `now` is the message's `moment`."""
    return _place(attempt, rank) + now


@lru_cache(maxsize=1_000)
def _place(attempt: int, rank: int) -> str:
    """The front of a clock; one message has several that differ in nothing else, and most messages have the same."""
    return f"{attempt:010d}{rank:02d}"


def moment(time: datetime, message_id: UUID) -> str:
    """The rest of a clock; `time` in UTC. orjson writes a time in an eighth of isoformat's, without microseconds where there are none."""
    stamp = orjson.dumps(time).decode()
    stamp = stamp[1:27] if time.microsecond else f"{stamp[1:20]}.000000"
    return stamp + message_id.hex


def clock_attempt(text: str) -> int:
    """The attempt inside a clock."""
    return int(text[_ATTEMPT])


def clock_time(text: str) -> datetime:
    """The time inside a clock."""
    return datetime.fromisoformat(text[_TIME]).replace(tzinfo=UTC)


@dataclass(slots=True)
class Folded:
    """What a batch says about one entity: the winning value and clock of every register that it touched."""

    key: Any
    tenant: str
    created_at: datetime
    attempt: int = 1
    version: int = 0
    clocks: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def placeholder(self) -> bool:
        """Whether the creating message has not been seen."""
        return "created" not in self.clocks


def fold_message(entity: Entity, message: Message, json_columns: frozenset[str]) -> Folded:
    """What one message says about its entity."""
    fold = entity.folds[message.type]
    # Not getattr: for a member that the model does not have it takes as long as all else here.
    members = vars(message.fields)
    given = members.get("attempt")
    attempt = given or 1
    at = moment(message.time, message.id)
    now = clock(attempt, 0, at)
    folded = Folded(members[entity.key_member], message.tenant, message.time, attempt, 1)
    if fold.creates:
        folded.clocks["created"] = now
    for name in fold.sets:
        value = column_value(message, name, json_columns)
        if name in entity.created_columns:
            folded.values[name] = value
        elif value is not None:
            _set(folded, name, value, now)
    for name, value in fold.means.items():
        _set(folded, name, value, now)
    for name in fold.at:
        _set(folded, name, message.time, now)
    attempt = ABOVE_ALL if fold.ends and given is None and entity.has_attempts else attempt
    status = members[fold.status_member] if fold.status_member else fold.status
    _fold_end(entity, fold, folded, status, attempt, at)
    return folded


def _fold_end(
    entity: Entity, fold: Fold, folded: Folded, status: str | None, attempt: int, at: str
) -> None:
    """The registers that an end without an attempt sets above all attempts: the status and the time of the end."""
    if status is not None:
        _set(folded, entity.status, status, clock(attempt, entity.rank[status], at))
    if fold.at_if_empty is not None:
        folded.clocks["ended"] = clock(attempt, 0, at)


def _set(folded: Folded, register: str, value: Any, now: str) -> None:
    folded.values[register] = value
    folded.clocks[register] = now


def merge(entity: Entity, one: Folded, other: Folded) -> Folded:
    """Both together; commutative and associative. `one` is changed and returned."""
    if one.placeholder == other.placeholder and one.placeholder:
        one.created_at = min(one.created_at, other.created_at)
    elif other.clocks.get("created", "") > one.clocks.get("created", ""):
        one.created_at = other.created_at
    for register, theirs in other.clocks.items():
        if theirs > one.clocks.get(register, ""):
            one.clocks[register] = theirs
            names = entity.created_columns if register == "created" else (register,)
            for name in names:
                one.values[name] = other.values.get(name)
    one.attempt = max(one.attempt, other.attempt)
    one.version += other.version
    return one


def fold_batch(
    entity: Entity, messages: Iterable[Message], json_columns: frozenset[str]
) -> dict[tuple[Any, str], Folded]:
    """One Folded for each entity that these messages tell of."""
    rows: dict[tuple[Any, str], Folded] = {}
    for message in messages:
        folded = fold_message(entity, message, json_columns)
        known = rows.get((folded.key, folded.tenant))
        rows[folded.key, folded.tenant] = folded if known is None else merge(entity, known, folded)
    return rows


def visible(entity: Entity, folded: Folded, column: str) -> Any:
    """The value that a row shows: what an older attempt owned is gone, an end fills an empty time."""
    if column == entity.if_empty:
        return _visible_end(entity, folded, column)
    value = folded.values.get(column)
    if column in entity.attempt_owned and column in folded.clocks:
        return value if clock_attempt(folded.clocks[column]) >= folded.attempt else None
    return value


def _visible_end(entity: Entity, folded: Folded, column: str) -> datetime | None:
    for register in (column, "ended"):
        text = folded.clocks.get(register)
        if text is None:
            continue
        if column not in entity.attempt_owned or clock_attempt(text) >= folded.attempt:
            return clock_time(text)
    return None
