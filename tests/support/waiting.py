"""Waiting for an outcome that nothing announces: the one place in the tests that looks again and again."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


async def until(condition: Callable[[], Any | Awaitable[Any]], seconds: float = 60) -> Any:
    """What the condition gives, once that is something; it may be a coroutine function. Raises TimeoutError."""
    nothing = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return found
            await asyncio.wait([nothing], timeout=0.02)


async def turn() -> None:
    """Let everything that is ready run once."""
    loop = asyncio.get_running_loop()
    passed = loop.create_future()
    loop.call_soon(passed.set_result, None)
    await passed
