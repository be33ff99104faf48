"""How much may be in hand: bytes of bodies for a process, and the prefetch that fits them for a family.

Promises that what is held stays within the budget, whatever is in the queues, but for one message of a family that
holds nothing else (what is still arriving is not counted as held yet: one body of each channel at most). The socket is
always read, so memory is bounded by what the broker may hand out.
"""

_FIRST_PREFETCH = 64
_RECENT = 1000


class ByteBudget:
    """The bytes of bodies that a process may hold, shared by its families."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.held = 0

    def fits(self, size: int) -> bool:
        """Whether this many more bytes stay within the budget."""
        return self.held + size <= self.total


class Prefetch:
    """How many deliveries a family may have in hand: budget over the largest recent body, starting low."""

    def __init__(self, budget: ByteBudget, most: int) -> None:
        self._budget = budget
        self._most = most
        self._largest = 0
        self._since_largest = 0
        self._fitting = 1
        self.count = min(_FIRST_PREFETCH, most)

    def observe(self, size: int) -> int | None:
        """Follow the largest recent body; another count, where what fits has halved or doubled."""
        self._since_largest += 1
        if size >= self._largest or self._since_largest > _RECENT:
            self._largest, self._since_largest = size, 0
            fitting = max(1, self._budget.total // max(1, size))
            self._fitting = max(1, min(self._most, 1 << (fitting.bit_length() - 1)))
        wanted = self._fitting
        return wanted if wanted < self.count or wanted >= 2 * self.count else None
