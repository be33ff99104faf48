"""Pauses a family when most of its messages are refused: a bad deployment makes a backlog, not a table of dead letters.

The one exception to "a bad message never stops a good one", and only where several sources are refused: one
publisher's rubbish never pauses anyone.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterable

from worker.message import Outcome, Rejected

_COUNTED = ("invalid", "unstorable")


class Pause:
    """Judges one family by its last messages."""

    def __init__(self, *, seconds: float, window: int, minimum: int, sources: int) -> None:
        self._seconds = seconds
        self._minimum = minimum
        self._fewest_sources = sources
        self._recent: deque[str | None] = deque(maxlen=window)
        self._refused: Counter[str] = Counter()
        self.active = False
        self.probing = False

    def record(self, outcomes: Iterable[Outcome]) -> bool:
        """Take note of a committed batch; True if the family has to pause now."""
        if self.probing:
            # What stands in the window brought the pause about: only the one batch after it counts.
            self._recent.clear()
            self._refused.clear()
        for outcome in outcomes:
            self._add(outcome)
        enough = self.probing or len(self._recent) >= self._minimum
        refused = self._refused.total()
        sources = 1 if self.probing else self._fewest_sources
        self.active = enough and 2 * refused > len(self._recent) and len(self._refused) >= sources
        self.probing = self.active
        return self.active

    def _add(self, outcome: Outcome) -> None:
        if len(self._recent) == self._recent.maxlen:
            oldest = self._recent[0]
            if oldest is not None:
                self._refused[oldest] -= 1
                if not self._refused[oldest]:
                    del self._refused[oldest]
        source = None
        if isinstance(outcome, Rejected) and outcome.reason in _COUNTED:
            source = outcome.source or ""
            self._refused[source] += 1
        self._recent.append(source)

    async def over(self, stop: asyncio.Event) -> None:
        """Wait until the pause has passed, or work has to stop."""
        if self.active:
            try:
                await asyncio.wait_for(stop.wait(), self._seconds)
            except TimeoutError:
                self.active = False
