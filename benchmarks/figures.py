"""Medians and ratios of interleaved rounds. Pure.

A ratio is taken within each round, where two runs stand minutes apart at most, and the median over the rounds is
reported with its spread: a machine that drifts moves both sides of a ratio.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median

Rounds = Sequence[Mapping[str, float]]
"""One mapping a round: contender to figure."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of a ratio over rounds, its smallest and its largest; or of a figure, where it has a bound of its own."""

    median: float
    lowest: float
    highest: float
    rounds: int


def ratio(rounds: Rounds, above: str, below: str) -> Ratio | None:
    """`above` over `below`, round by round; None where no round has both."""
    found = [
        figures[above] / figures[below]
        for figures in rounds
        if above in figures and figures.get(below)
    ]
    return spread(found)


def spread(found: Sequence[float]) -> Ratio | None:
    """Median, smallest and largest of these; None for none."""
    if not found:
        return None
    return Ratio(median(found), min(found), max(found), len(found))


def middle(rounds: Rounds, name: str) -> float | None:
    """The median of one contender's figure."""
    found = [figures[name] for figures in rounds if name in figures]
    return median(found) if found else None


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all are not above (nearest rank). Raises ValueError for none."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def drift(calibrations: Sequence[float]) -> float:
    """How much faster the machine was at its best than at its worst."""
    return max(calibrations) / min(calibrations) if calibrations else 1.0
