"""What each design choice buys: the worker without it, beside the worker as it is (`make bench-choices`).

Every round runs both within the same minutes; what is shown is the ratio of the two, and its spread over the rounds.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import document
from benchmarks.contenders.without import CHOICES
from benchmarks.figures import Ratio, ratio
from benchmarks.load import make
from benchmarks.measure import Measurement
from benchmarks.rounds import Entry, Results, run
from benchmarks.services import Services

_MESSAGES = {"logs": 20_000, "lifecycle": 16_000, "trajectories": 4_000}
_ROUNDS = 5
_HEADS = ("without it", "load", "rate, to the worker as it is", "spread", "CPU", "rounds")


async def main(
    services: Services,
    console: Console,
    folder: Path,
    progress: Callable[[int, int, Measurement], None],
    *,
    rounds: int | None,
    write: bool,
) -> int:
    """Measure, print and write it; 1 where some run was not as it should be."""
    names = [("ours", load) for load in _MESSAGES]
    names += [(f"without-{choice.name}", choice.load) for choice in CHOICES]
    entries = [Entry(name, load, _MESSAGES[load], rounds or _ROUNDS) for name, load in names]
    loads = {load: make(load, count) for load, count in _MESSAGES.items()}
    results = await run(services, entries, loads, progress)
    rows = list(_rows(results))
    table = Table(title="Design choices", box=None, pad_edge=False, header_style="bold")
    for head in _HEADS:
        table.add_column(head)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for found in results.bad():
        console.print(f"[red]No figure:[/] {found.contender}: {'; '.join(found.problems)}")
    (folder / "choices.json").write_text(json.dumps([dict(zip(_HEADS, row, strict=True)) for row in rows], indent=1))  # fmt: skip
    if write:
        document.put("choices", document.table(_HEADS, rows))
    return 1 if any(results.bad()) else 0


def _rows(results: Results) -> Any:
    for choice in CHOICES:
        name = f"without-{choice.name}"
        rate = ratio(results.rounds_of(choice.load, "rate"), name, "ours")
        cost = ratio(results.rounds_of(choice.load, "cpu_total"), name, "ours")
        if rate and cost:
            yield (choice.text, choice.load, f"{rate.median:.2f}", _spread(rate), f"{cost.median:.2f}", str(rate.rounds))  # fmt: skip


def _spread(found: Ratio) -> str:
    return f"{found.lowest:.2f} to {found.highest:.2f}"
