"""The verdict: every message that the broker confirmed, held against what became of it.

Promises that entries are judged all alike, whatever their number, and that offenders are named: the first of each sort.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from worker.torture.ledger import (
    ACCEPTED,
    ANSWERED,
    ASKED,
    HEARD,
    LETTER,
    ROW,
    SENT,
    Kind,
    Ledger,
)

SORTS = ("lost", "doubled", "unconfirmed", "stuck", "unexpected", "crashed")
"""What must be zero, each."""

MEANING = {
    "lost": "confirmed to the publisher by RabbitMQ, and neither in a table nor a dead letter",
    "doubled": "in the tables or the dead letters more than once",
    "unconfirmed": "no confirmation was heard, or no reply came where one was asked for",
    "stuck": "left in a queue or the outbox, or a worker that does not end",
    "unexpected": "in the tables and published by nobody, or not what was to be expected",
    "crashed": "worker processes that ended without being asked to",
}

_NAMED = 20


@dataclass
class Verdict:
    """How many offenders there are of each sort, and the first of them."""

    counts: Counter[str] = field(default_factory=Counter)
    offenders: dict[str, list[str]] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        """Whether every message is accounted for."""
        return not any(self.counts.values())

    def charge(self, sort: str, who: str, times: int = 1) -> None:
        """Somebody or something offends."""
        self.counts[sort] += times
        named = self.offenders.setdefault(sort, [])
        if len(named) < _NAMED:
            named.append(who)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "balanced": self.balanced,
            **{sort: self.counts[sort] for sort in SORTS},
            "offenders": self.offenders,
        }


def judge(ledger: Ledger, verdict: Verdict) -> None:
    """Charge what the ledger shows. Doubled rows are charged by whoever read the tables."""
    for (kind, state), times in Counter(zip(ledger.kinds, ledger.states, strict=True)).items():
        if Kind(kind).paired:
            continue
        for sort, why in _offences(Kind(kind), state):
            verdict.counts[sort] += times
            _name(ledger, verdict, sort, why, _numbers(ledger, kind, state))
    for first in _pairs(ledger):
        pair = Kind(ledger.kinds[first])
        for sort, why in _offences_of_pair(pair, ledger.states[first], ledger.states[first + 1]):
            verdict.counts[sort] += 1
            _name(ledger, verdict, sort, why, [first])
    silent = _anonymous(ledger) - ledger.anonymous
    if silent > 0:
        text = f"{silent:,} rejections without an id were not heard on the exchange"
        verdict.charge("unconfirmed", text, silent)


def _offences(kind: Kind, state: int) -> Iterator[tuple[str, str]]:
    """What is wrong with a message that is judged alone."""
    if not state & SENT:
        if state & (ROW | LETTER):
            yield "unexpected", "is there and was never published"
        return
    wanted, other = (LETTER, ROW) if kind.bad else (ROW, LETTER)
    if state & ACCEPTED and not state & (ROW | LETTER):
        yield "lost", "is nowhere"
    if state & ROW and state & LETTER:
        yield "doubled", "is a row and a dead letter"
    elif state & other:
        yield "unexpected", f"is a {'row' if other == ROW else 'dead letter'}"
    if state & (ACCEPTED | wanted):
        if not kind.bad and not state & HEARD:
            yield "unconfirmed", "was not heard of"
        if state & ASKED and state & ACCEPTED and not state & ANSWERED:
            yield "unconfirmed", "got no reply"


def _offences_of_pair(kind: Kind, first: int, second: int) -> Iterator[tuple[str, str]]:
    """What is wrong with two messages that are judged together."""
    accepted = (bool(first & ACCEPTED), bool(second & ACCEPTED))
    rows = bool(first & ROW) + bool(second & ROW)
    letters = bool(first & LETTER) + bool(second & LETTER)
    rivals = kind is Kind.RIVAL
    if any(accepted) and not rows:
        yield "lost", "and its pair have no row"
    if rows > 1:
        yield "doubled", "and its pair have a row each"
    if rivals and all(accepted) and not letters:
        yield "lost", "has a rival, and neither is a dead letter"
    if letters > (1 if rivals else 0):
        yield ("doubled" if rivals else "unexpected"), "and its pair are dead letters"
    for state, has, named in ((first, accepted[0], "it"), (second, accepted[1], "its pair")):
        if has and not rivals and not state & HEARD:
            yield "unconfirmed", f"is one of a pair: {named} was not heard of"
        if has and state & ASKED and not state & ANSWERED:
            yield "unconfirmed", f"is one of a pair: {named} got no reply"


def _pairs(ledger: Ledger) -> Iterator[int]:
    """The first of each pair, where one of the two was published."""
    number, kinds = 0, ledger.kinds
    for kind in (Kind.TWIN, Kind.RIVAL):
        number = kinds.find(kind)
        while number >= 0:
            yield number
            number = kinds.find(kind, number + 2)


def _numbers(ledger: Ledger, kind: int, state: int) -> Iterable[int]:
    """The first entries of this kind that are in this state."""
    found = (
        number
        for number, entry in enumerate(zip(ledger.kinds, ledger.states, strict=True))
        if entry == (kind, state)
    )
    return islice(found, _NAMED)


def _name(ledger: Ledger, verdict: Verdict, sort: str, why: str, numbers: Iterable[int]) -> None:
    named = verdict.offenders.setdefault(sort, [])
    for number in islice(numbers, max(_NAMED - len(named), 0)):
        kind = Kind(ledger.kinds[number]).name.lower()
        named.append(f"{ledger.id_of(number)} ({kind}) {why}")


def _anonymous(ledger: Ledger) -> int:
    """How many rejections must have been heard that name no id: those of what nobody can read."""
    unreadable = (Kind.UNDECODABLE, Kind.HOSTILE)
    return sum(
        times
        for (kind, state), times in Counter(zip(ledger.kinds, ledger.states, strict=True)).items()
        if kind in unreadable and state & ACCEPTED and not state & HEARD
    )
