"""Whole numbers as ranges, in the way of PostgreSQL's multirange types: few values say which of millions there are.

Pure. Promises that a range is never empty, and that ranges are apart and in order.
"""

from collections.abc import Iterable
from typing import NamedTuple


class Range(NamedTuple):
    """Every number from the first to the last, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def fold(numbers: Iterable[int]) -> tuple[list[Range], list[Range]]:
    """These numbers as ranges, and those of them that came more than once."""
    once: list[Range] = []
    again: list[Range] = []
    for number in sorted(numbers):
        _append(again if once and number == once[-1].last else once, number)
    return once, again


def _append(ranges: list[Range], number: int) -> None:
    """Add a number that is not smaller than any before."""
    if ranges and number <= ranges[-1].last + 1:
        ranges[-1] = Range(ranges[-1].first, number)
    else:
        ranges.append(Range(number, number))


def literal(ranges: Iterable[Range]) -> str:
    """Ranges as the text of an int8multirange."""
    return "{" + ",".join(f"[{first},{last}]" for first, last in ranges) + "}"
