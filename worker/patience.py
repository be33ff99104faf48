"""Waiting for a service that is not there yet, at start and in commands; and finishing a step although all else is cancelled."""

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
