"""Waiting: for a service that is not there yet, for the first of several works or events; and finishing a step although
all else is cancelled.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import structlog

from worker.errors import Unavailable

log = structlog.get_logger()
T = TypeVar("T")


def _log(text: str) -> None:
    log.warning("waiting for a service", error=text)


async def patiently(
    seconds: float, step: Callable[[], Awaitable[T]], say: Callable[[str], None] = _log
) -> T:
    """Try a step until it works; raises Unavailable once this many seconds have passed (0: after the first attempt)."""
    deadline = time.monotonic() + seconds
    pause = 0.1
    while True:
        try:
            return await step()
        except Unavailable as error:
            if time.monotonic() + pause > deadline:
                raise
            say(str(error))
            await asyncio.sleep(pause)
            pause = min(2 * pause, 2)


def rest(pause: float, began: float) -> float:
    """Seconds to wait for the next attempt: a pause, with jitter, counted from when the last one began (monotonic).

    An attempt that waited long for an answer was pause enough: after it the next one follows almost at once, so that a
    service whose packets vanished is found seconds after its return.
    """
    left = pause * random.uniform(0.5, 1) - (time.monotonic() - began)  # noqa: S311 (jitter)
    return max(left, random.uniform(0.02, 0.1))  # noqa: S311 (as above)


async def in_any_case(step: Coroutine[Any, Any, None]) -> None:
    """Finish a short step even if this task is cancelled meanwhile; the cancellation follows it."""
    task = asyncio.ensure_future(step)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def until_one_fails(*works: Coroutine[Any, Any, None]) -> None:
    """Run these side by side until one raises; end the others and raise it.

    No TaskGroup: on Python 3.11 one that is ending over an error forgets that it was cancelled meanwhile, and whoever
    goes on after the error could not be stopped.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    errors = [error for error in ended if isinstance(error, Exception)]
    if errors:  # a fault of our own before one of the infrastructure
        raise min(errors, key=lambda error: isinstance(error, Unavailable))


async def first_of(*events: asyncio.Event) -> None:
    """Wait until one of these is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
