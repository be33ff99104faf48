"""Agents that go on publishing, good and bad messages, while a test does something to a service."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from contracts import Event
from contracts.identifiers import uuid7
from support.broker import Client
from support.events import created, logged
from support.ledger import Ledger

_EVERY = 0.02
_BAD_EVERY = 10


async def elapse(seconds: float) -> None:
    """Let time pass: only for a fault that is defined by how long it lasts, never to wait for an outcome."""
    await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=seconds)


@asynccontextmanager
async def traffic(agent: Client, ledger: Ledger, every: float = _EVERY) -> AsyncIterator[None]:
    """Publish a task, a log entry of it and now and then a bad message, again and again, as long as the block lasts."""
    over = asyncio.Event()
    publishing = asyncio.create_task(_publish(agent, ledger, every, over))
    try:
        yield
    finally:
        over.set()
        # Not cut short: a message is in the ledger if, and only if, the broker has it.
        await publishing


async def _publish(agent: Client, ledger: Ledger, every: float, over: asyncio.Event) -> None:
    for number in count():
        task = uuid7()
        events: list[Event] = [logged(task, step_number=number), created(task)]
        await _round(agent, ledger, events, bad=number % _BAD_EVERY == 0)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), every)
        if over.is_set():
            return


async def _round(agent: Client, ledger: Ledger, events: list[Event], *, bad: bool) -> None:
    await ledger.publish(agent, events)
    if bad:
        await ledger.publish_bad(agent, bad_event(), "invalid", "execution.logged")


def bad_event() -> bytes:
    """An event with an id that its contract refuses."""
    return logged(action="wrong").to_json().replace(b'"completed"', b'"no such status"')
