"""Attempts to handle one message alone: each is on record before it begins, so that what kills workers is found.

Promises that only an attempt which ended its process counts against the message: neither a worker that is told to
stop, nor a database that is away when an attempt ends, nor living workers that handle copies of the message at the same
moment make a dead letter of it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Protocol, TypeVar

from worker.errors import Misconfigured, Unavailable, WorkerError
from worker.message import Delivery
from worker.patience import in_any_case
from worker.store import suspects
from worker.store.database import Database

_LOOKS, _LOOK_EVERY = 5, 1.0
"""How often, and every how many seconds, to look whether one of too many attempts ends, before they count as deaths."""

_END_SECONDS = 5
"""How long a worker that stops may take to record that it did not die of the message in its hand."""

T = TypeVar("T")


class Patiently(Protocol):
    """Tries a step until it works; None where nobody waits for it any more."""

    async def __call__(self, step: Callable[[], Awaitable[T]], /) -> T | None:
        """Its result."""


class Attempts:
    """The attempts of one family's pipeline."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._late: list[bytes] = []

    async def begin(
        self, suspect: Delivery, patiently: Patiently, stopping: asyncio.Event
    ) -> int | None:
        """Put an attempt on record: how many have begun without an end, this one counted; None when stopping.

        Where these are too many already, a body may have been published several times, and workers that live may have a
        copy each in hand. So it looks again for some seconds in which the database answers: one that ends takes the
        count back, and only what stays as it is are deaths.
        """
        since: datetime | None = None
        looks = 0
        while True:
            dead_since = since if looks >= _LOOKS else None
            async with self.ended_by_a_stop(suspect):
                found = await patiently(lambda: self._begin(suspect, dead_since))  # noqa: B023 (called at once)
            if not isinstance(found, datetime):
                return found
            looks = looks + 1 if found == since else 0
            since = found
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY):
                    await stopping.wait()
                return None

    @asynccontextmanager
    async def ended_by_a_stop(self, suspect: Delivery) -> AsyncIterator[None]:
        """Record the end of an attempt where the worker stops meanwhile, and not because of this message.

        A restart loop must not make it a dead letter.
        """
        try:
            yield
        except (Misconfigured, asyncio.CancelledError):
            await in_any_case(self._end_in_a_hurry(suspect))
            raise

    async def end(self, suspect: Delivery, patiently: Patiently) -> None:
        """Record that the attempt ended, now or with the next answer of the database."""
        if not await patiently(lambda: suspects.end(self._database, suspect)):
            # Both services are away: an attempt that ended so must never count against the message.
            self._late.append(suspects.digest(suspect))

    async def record_late_ends(self) -> None:
        """The database has just answered: record the ends that it was away for."""
        late, self._late = self._late, []
        try:
            if late:
                await suspects.end_late(self._database, late)
        except Unavailable:
            self._late += late

    async def _begin(self, suspect: Delivery, dead_since: datetime | None) -> int | datetime:
        """One attempt on record, or when the last of too many began; one whose answer was lost does not count."""
        late = list(self._late)
        try:
            found = await suspects.begin(self._database, suspect, late, dead_since)
        except Unavailable as error:
            if error.ambiguous:
                self._late.append(suspects.digest(suspect))
            raise
        del self._late[: len(late)]
        return found

    async def _end_in_a_hurry(self, suspect: Delivery) -> None:
        with contextlib.suppress(WorkerError, TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await suspects.end(self._database, suspect)
