"""What became of published events, counted; every event once."""

from collections import Counter
from dataclasses import dataclass, field

_MOST_NAMED = 1000


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that was not published, or not stored, and why."""

    line: int
    why: str


@dataclass
class Published:
    """What became of the events so far."""

    lines: int = 0
    events: int = 0
    """Events that were handed over."""
    accepted: int = 0
    """Of these, the ones that the broker has."""
    bad_lines: int = 0
    not_accepted: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    """Events by what the workers said: persisted, duplicate, rejected."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Rejected events by reason."""
    problems: list[Problem] = field(default_factory=list)
    """The first thousand of them."""
    unanswered: int = 0
    complete: bool = True
    """Whether the file was read to its end."""

    def name(self, line: int, why: str) -> None:
        """Remember a problem, if there are not too many."""
        if len(self.problems) < _MOST_NAMED:
            self.problems.append(Problem(line, why))
