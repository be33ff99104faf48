"""Waiting for a service that is not there yet, at start and in commands; and finishing a step although all else is cancelled."""

import asyncio
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


async def in_any_case(step: Coroutine[Any, Any, None]) -> None:
    """Finish a short step even if this task is cancelled meanwhile; the cancellation follows it."""
    task = asyncio.ensure_future(step)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
