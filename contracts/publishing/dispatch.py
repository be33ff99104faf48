"""Sends parcels over whatever link there is, and opens a new one when it is lost.

Owns back-off and repetition. Promises that a parcel is sent until the broker has it, a worker has answered, or the
broker has refused it several times.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from contracts.publishing.errors import NotAccepted, NotConnected, PublishingError
from contracts.publishing.ledger import Ledger
from contracts.publishing.parcels import Parcel

MAX_REFUSALS = 5
"""How often a parcel is sent again after the broker has closed the channel, perhaps over it."""

MAX_NACKS = 9
"""How often after a nack: half a minute, since a queue of a cluster takes nothing while it elects a leader."""

FIRST_DELAY = 0.05
LONGEST_DELAY = 10.0


class Nacked(Exception):
    """The broker did not take a parcel; it may later."""


class LinkLost(Exception):
    """The link broke while a parcel was under way; the broker may have it.

    `fault` is set where the broker closed the link over something that was sent: perhaps this parcel.
    """

    def __init__(self, fault: PublishingError | None = None) -> None:
        super().__init__(str(fault or "the connection was lost"))
        self.fault = fault


class Link(Protocol):
    """A connection to the broker on which parcels are sent and answers come."""

    lost: asyncio.Event

    async def send(self, parcel: Parcel) -> None:
        """Returns when the broker has it. Raises Nacked, LinkLost, or NotAccepted if it can never be sent."""

    async def close(self) -> None:
        """End it; never raises."""


def delay(failures: int) -> float:
    """Seconds to wait after so many failures in a row: doubled each time, with jitter, so that no two clients agree."""
    longest = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(failures, 30))
    return random.uniform(longest / 2, longest)  # noqa: S311 (jitter is no secret)


class Dispatcher:
    """Keeps a link open and sends parcels over it."""

    def __init__(
        self,
        open_link: Callable[[], Awaitable[Link]],
        ledger: Ledger,
        resend: Callable[[], None],
    ) -> None:
        self._open_link = open_link
        self._ledger = ledger
        self._resend = resend
        self._link: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opened = 0.0
        self._suspects = asyncio.Lock()
        self._keeper = asyncio.create_task(self._keep_link())
        self.trouble: PublishingError | None = None
        """Why there is no link at present."""

    async def connected(self) -> None:
        """Wait for a link. Raises what makes the first one hopeless, such as a wrong password."""
        await asyncio.shield(self._link)

    def send(self, parcel: Parcel) -> None:
        """Send a parcel in the background; the ledger hears what becomes of it."""
        task = asyncio.create_task(self._send(parcel))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop sending and close the link."""
        tasks = [self._keeper, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._link.done() and self._link.exception() is None:
            await self._link.result().close()

    async def _keep_link(self) -> None:
        failures = 0
        first = True
        while True:
            try:
                link = await self._open_link()
            except PublishingError as error:
                self.trouble = error
                if first and error.hopeless:
                    self._link.set_exception(error)
                    return
                await asyncio.sleep(delay(failures))
                failures += 1
                continue
            self.trouble = None
            self._link.set_result(link)
            if not first:
                self._resend()
            first = False
            self._opened = asyncio.get_running_loop().time()
            await link.lost.wait()
            self._drop(link)
            await link.close()
            # A link that breaks at once, over and over, must not be opened at full speed.
            failures = 0 if self._is_stable() else failures + 1
            await asyncio.sleep(delay(failures))

    async def _send(self, parcel: Parcel) -> None:
        refusals = 0
        suspect = False
        while not all(pending.settled for pending in parcel.pendings):
            refusal: PublishingError
            try:
                await self._attempt(parcel, alone=suspect)
            except NotAccepted as error:
                return self._fail(parcel, error)
            except Nacked as error:
                refusal, most = NotAccepted(f"the broker refused it: {error}"), MAX_NACKS
                await asyncio.sleep(delay(refusals + 1))
            except LinkLost as error:
                if error.fault is None:
                    continue
                refusal, most = error.fault, MAX_REFUSALS
                suspect = True
            else:
                return self._accept(parcel)
            refusals += 1
            if refusals > most:
                return self._fail(parcel, refusal)
        return None

    async def _attempt(self, parcel: Parcel, *, alone: bool) -> None:
        """Send once. What was under way when the broker closed a link goes alone, so that a bad parcel is known."""
        async with self._suspects if alone else contextlib.nullcontext():
            link = await asyncio.shield(self._link)
            try:
                await link.send(parcel)
            except LinkLost:
                self._drop(link)
                raise
            except Nacked:
                # A channel that first met a quorum queue while it had no leader is refused for ever (RabbitMQ 3.10);
                # a new one is not. What is under way beside it is sent again.
                if self._is_stable():
                    self._drop(link)
                raise

    def _is_stable(self) -> bool:
        """Whether the link has been open for so long that another one may be opened at once."""
        return asyncio.get_running_loop().time() - self._opened > LONGEST_DELAY

    def _drop(self, link: Link) -> None:
        """From here on nobody takes this link for a good one."""
        link.lost.set()
        if self._link.done() and self._link.result() is link:
            self._link = asyncio.get_running_loop().create_future()
            self.trouble = NotConnected("the connection to the broker was lost")

    def _accept(self, parcel: Parcel) -> None:
        for pending in parcel.pendings:
            self._ledger.accept(pending)

    def _fail(self, parcel: Parcel, error: PublishingError) -> None:
        for pending in parcel.pendings:
            self._ledger.fail(pending, error)
