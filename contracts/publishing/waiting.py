"""How long a call waits, and what it says when that was not long enough."""

import asyncio
from typing import Any

from contracts.publishing.errors import NotConfirmed, PublishingError, Unanswered
from contracts.publishing.ledger import Pending


class Wait:
    """The waits of one call, which end together."""

    __slots__ = ("_end", "_loop", "limit")

    def __init__(self, limit: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + limit
        self.limit = limit

    async def for_(self, future: asyncio.Future[Any]) -> bool:
        """Whether a future, that others may wait for too, was done in time."""
        if not future.done():
            await asyncio.wait((future,), timeout=max(0.0, self._end - self._loop.time()))
        return future.done()


def too_late(what: str, pending: Pending | None, limit: float) -> PublishingError:
    """The error of a call whose time is over, from how far its event has come."""
    if pending is None:
        return NotConfirmed(
            f"{what} was not sent: for {limit:g} s as many events as max_unanswered allows were under way"
        )
    if not pending.accepted.done():
        return NotConfirmed(
            f"the broker did not confirm {what} within {limit:g} s; it may have it: publish it again, "
            "a repetition is stored once"
        )
    return Unanswered(
        f"no worker said within {limit:g} s what became of {what}; the broker has it: is a worker running for its "
        "family, and is its database up? Calling again asks again"
    )


def again(error: PublishingError) -> PublishingError:
    """The same error for one more caller: an exception that is raised twice gathers tracebacks."""
    return type(error)(str(error))


def raise_if(error: PublishingError | None) -> None:
    """Raise an error that was kept as a value."""
    if error is not None:
        raise again(error)
