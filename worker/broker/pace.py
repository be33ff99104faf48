"""How fast to publish: so many a second, evenly, and never faster afterwards to make up for a stop."""

import asyncio

_SHORTEST_SLEEP = 0.002
_MOST_BEHIND = 0.05


class Pace:
    """Turns at a rate; without one, every turn is now."""

    def __init__(self, rate: float | None) -> None:
        self._interval = 1 / rate if rate else 0.0
        self._next = float("-inf")

    async def turn(self) -> None:
        """Wait for the next turn."""
        if not self._interval:
            return
        now = asyncio.get_running_loop().time()
        self._next = max(self._next + self._interval, now - _MOST_BEHIND)
        if self._next - now >= _SHORTEST_SLEEP:
            await asyncio.sleep(self._next - now)
