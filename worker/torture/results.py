"""What a run has shown, as data: the command prints it, and the report is written from it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.torture.conductor import Struck
from worker.torture.ledger import ACCEPTED, Ledger
from worker.torture.verdict import Verdict

if TYPE_CHECKING:
    from worker.torture.run import Options


@dataclass(frozen=True)
class Results:
    """One run."""

    options: "Options"
    services: tuple[str, ...]
    ledger: Ledger
    verdict: Verdict
    faults: dict[str, int]
    history: list[Struck]
    rows: dict[str, int]
    letters: dict[str, int]
    stall: float
    seconds: float
    starts: int
    largest_bytes: int
    own_bytes: int
    recorded: int

    @property
    def accepted(self) -> int:
        """Messages that the broker confirmed to their publishers."""
        return sum(1 for state in self.ledger.states if state & ACCEPTED)

    @property
    def rate(self) -> float:
        """Messages told of in a second, faults included."""
        return self.ledger.done / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        options = self.options
        return {
            **self.verdict.as_json(),
            "seed": options.seed,
            "seconds": round(self.seconds, 1),
            "workers": options.workers,
            "services": list(self.services),
            "messages": self.accepted,
            "publishes": self.ledger.sends,
            "outcomes": self.ledger.outcomes,
            "rows": self.rows,
            "dead_letters": self.letters,
            "faults": self.faults,
            "history": self.history,
            "worker_starts": self.starts,
            "longest_stall_seconds": round(self.stall, 1),
            "messages_per_second": round(self.rate),
            "largest_worker_bytes": self.largest_bytes,
            "largest_own_bytes": self.own_bytes,
        }
