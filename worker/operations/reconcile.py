"""Is anything missing? The loss ledger's account of every epoch, and the queues' word on what is still on its way.

Promises that a number is called missing only where it was not there at two looks, and in between every queue was
empty for a while: a message that was waiting then has been handled by now.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from worker import families
from worker.broker import topology
from worker.broker.connection import BrokerConnection
from worker.operations.services import open_broker, open_database, require_migrations
from worker.settings import Settings
from worker.store.database import Database
from worker.store.reconciliation import (
    Account,
    Chosen,
    Epoch,
    Numbers,
    letters_without_number,
    look,
)

MOST_ACCOUNTS = 10_000
"""Epochs with something to tell that are kept; of the others only the number is told."""

_RANGES_OF_MANY = 100
_RANGES_OF_ONE = 10_000
_IN_HAND = 5.0
"""Seconds for which a message may be in a worker's hand after its queue was seen empty."""
_EVERY = 0.5


@dataclass(frozen=True)
class Finding:
    """One epoch of which something is to be told."""

    account: Account
    on_its_way: Numbers = field(default_factory=Numbers)
    """Not there yet, and perhaps in a queue; what is called missing is not."""


@dataclass
class Reconciliation:
    """The verdict on all epochs that were looked at."""

    epochs: int = 0
    events: int = 0
    """The numbers that were used in them."""
    missing: int = 0
    on_its_way: int = 0
    doubled: int = 0
    dead_letters: int = 0
    discarded: int = 0
    letters_without_number: int = 0
    """Unresolved letters that nobody can read a number from; something that is missing may be in one of them."""
    waiting: dict[str, int] = field(default_factory=dict)
    """Messages in the queues that were not seen empty."""
    findings: list[Finding] = field(default_factory=list)
    findings_left_out: int = 0

    @property
    def complete(self) -> bool:
        """Whether nothing is missing, doubled, or in dead letters."""
        return not (self.missing or self.doubled or self.dead_letters)


async def reconcile(
    settings: Settings, chosen: Chosen, *, wait: float, say: Callable[[str], None] = lambda _: None
) -> Reconciliation:
    """Look; where something is not there, look again until it is, or the queues are empty, or `wait` seconds are over."""
    async with open_database(settings) as database, open_broker(settings) as broker:
        await require_migrations(database, settings)
        most_ranges = _RANGES_OF_ONE if chosen.epoch or len(chosen.upto) == 1 else _RANGES_OF_MANY
        result, accounts = await _first_look(database, chosen, most_ranges)
        queues = _Queues(broker)
        if any(account.missing.count for account in accounts.values()):
            say(f"some numbers are not there: looking again for up to {wait:g} s")
            await _look_again(database, accounts, queues, wait, most_ranges)
        _conclude(result, accounts.values(), queues, wait)
        if result.missing:
            result.letters_without_number = await letters_without_number(database)
    return result


async def _first_look(
    database: Database, chosen: Chosen, most_ranges: int
) -> tuple[Reconciliation, dict[Epoch, Account]]:
    """The accounts with something to tell; the sums of those that are left out."""
    result = Reconciliation()
    accounts: dict[Epoch, Account] = {}
    async for account in look(database, chosen, most_ranges=most_ranges):
        result.epochs += 1
        result.events += account.last
        if not _tells(account):
            continue
        if len(accounts) < MOST_ACCOUNTS:
            accounts[account.key] = account
        else:
            result.findings_left_out += 1
            _add(result, account)
            result.missing += account.missing.count
    return result, accounts


class _Queues:
    """Which queues have been seen empty, and since when all have."""

    def __init__(self, broker: BrokerConnection) -> None:
        self._broker = broker
        names = (*families.families(), topology.UNROUTED_FAMILY)
        self._unseen = [
            queue
            for name in names
            for queue in (topology.queue_name(name), topology.dead_letter_queue_name(name))
        ]
        self._empty_since: float | None = None
        self.waiting: dict[str, int] = {}

    async def look(self) -> None:
        """Ask for those that were not seen empty yet."""
        counts = {name: await topology.message_count(self._broker, name) for name in self._unseen}
        self.waiting = {name: count for name, count in counts.items() if count}
        self._unseen = list(self.waiting)
        if not self._unseen and self._empty_since is None:
            self._empty_since = time.monotonic()

    def done(self, seconds: float) -> bool:
        """Whether what waited has been taken at least so many seconds ago."""
        return self._empty_since is not None and time.monotonic() - self._empty_since >= seconds


async def _look_again(
    database: Database,
    accounts: dict[Epoch, Account],
    queues: _Queues,
    wait: float,
    most_ranges: int,
) -> None:
    """Look again at the epochs that miss something, until none does, or there is no more hope, or the time is over."""
    deadline = time.monotonic() + wait
    while True:
        over = time.monotonic() >= deadline
        await queues.look()
        hopeless = queues.done(min(_IN_HAND, wait))  # judged before the look that it speaks of
        late = {key: one.last for key, one in accounts.items() if one.missing.count}
        chosen = Chosen(upto=late, no_further=True)
        async for account in look(database, chosen, most_ranges=most_ranges):
            accounts[account.key] = account
        if over or hopeless or not any(one.missing.count for one in accounts.values()):
            return
        await asyncio.sleep(_EVERY)


def _conclude(
    result: Reconciliation, accounts: Iterable[Account], queues: _Queues, wait: float
) -> None:
    """Sum up; what is not there is missing, or on its way where a queue was never seen empty for long enough."""
    lost = queues.done(min(_IN_HAND, wait))
    for account in accounts:
        if not _tells(account):
            continue
        _add(result, account)
        if lost:
            result.missing += account.missing.count
            result.findings.append(Finding(account))
        else:
            result.on_its_way += account.missing.count
            result.waiting = queues.waiting
            result.findings.append(
                Finding(replace(account, missing=Numbers()), on_its_way=account.missing)
            )


def _tells(account: Account) -> bool:
    """Whether there is anything to tell of an epoch."""
    kinds = (account.missing, account.doubled, account.dead_letters, account.discarded)
    return any(kind.count for kind in kinds)


def _add(result: Reconciliation, account: Account) -> None:
    result.doubled += account.doubled.count
    result.dead_letters += account.dead_letters.count
    result.discarded += account.discarded.count
