"""What a person sees of a torture run: the seed first, the state of affairs, and the verdict."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from rich.live import Live
from rich.table import Table
from rich.text import Text

from worker.demo.terminal import Terminal
from worker.torture.conductor import Conductor
from worker.torture.faults import FAULTS
from worker.torture.hearing import Hearing
from worker.torture.ledger import Ledger
from worker.torture.results import Results
from worker.torture.stage import Stage
from worker.torture.verdict import MEANING, SORTS

_LINE_SECONDS = 5


class Screen(Terminal):
    """Where the run tells what it does."""

    def introduce(self, seed: int) -> None:
        """The seed, which repeats the choice of faults."""
        self.plain(
            f"Seed {seed}: 'worker torture --seed {seed}' makes the same faults in the same order."
        )

    @contextlib.asynccontextmanager
    async def live(
        self, ledger: Ledger, hearing: Hearing, conductor: Conductor, stage: Stage
    ) -> AsyncIterator[None]:
        """Show the state of affairs as long as the block lasts."""
        begin = time.monotonic()

        def state() -> Text:
            return Text(_state(ledger, hearing, conductor, stage, time.monotonic() - begin))

        if self.console.is_terminal:
            with Live(
                console=self.console, get_renderable=state, refresh_per_second=4, transient=True
            ):
                yield
            return
        printing = asyncio.create_task(self._print_regularly(state))
        try:
            yield
        finally:
            printing.cancel()

    async def _print_regularly(self, state: "object") -> None:
        while True:
            await asyncio.sleep(_LINE_SECONDS)
            self.indented(state())  # type: ignore[operator]

    def results(self, results: Results) -> None:
        """Counts, faults, and the verdict."""
        for table in (_counts(results), _faults(results)):
            self.console.print()
            self.console.print(table)
        self.console.print()
        self.step("The verdict")
        verdict = results.verdict
        for sort in SORTS:
            count = verdict.counts[sort]
            style = "bold red" if count else "green"
            self.indented(Text.assemble((f"{count:>7,} {sort:<12}", style), (MEANING[sort], "dim")))
            for who in verdict.offenders.get(sort, ()):
                self.indented(Text(f"        {who}"))
        self.console.print()
        if verdict.balanced:
            text = f"Every one of {results.accepted:,} messages is accounted for."
            self.console.print(Text(text, style="bold green"))
        else:
            self.console.print(Text("No: something is missing or too much.", style="bold red"))


def _state(
    ledger: Ledger, hearing: Hearing, conductor: Conductor, stage: Stage, seconds: float
) -> str:
    workers = ", ".join(place.state for place in stage.places)
    return (
        f"{seconds:5.0f} s  {ledger.sends:,} published, {ledger.outcomes['persisted']:,} persisted, "
        f"{ledger.outcomes['duplicate']:,} duplicates, {ledger.outcomes['rejected']:,} rejected, "
        f"{ledger.under_way:,} under way, {conductor.faults.total():,} faults "
        f"(now: {', '.join(conductor.under_way) or 'none'}), workers: {workers}, "
        f"silent for {hearing.silence:.1f} s"
    )


def counts(results: Results) -> list[tuple[str, str]]:
    """What was published and what became of it, as names and figures."""
    ledger = results.ledger
    return [
        ("publishes, repetitions included", f"{ledger.sends:,}"),
        ("messages that RabbitMQ confirmed", f"{results.accepted:,}"),
        ("confirmed as persisted", f"{ledger.outcomes['persisted']:,}"),
        ("confirmed as duplicates", f"{ledger.outcomes['duplicate']:,}"),
        ("confirmed as rejected", f"{ledger.outcomes['rejected']:,}"),
        *(
            (f"dead letters: {name}", f"{count:,}")
            for name, count in sorted(results.letters.items())
        ),
        *((f"rows of {name}", f"{count:,}") for name, count in results.rows.items()),
        ("messages a second, faults included", f"{results.rate:,.0f}"),
        ("longest stall", f"{results.stall:.1f} s"),
        ("workers started", f"{results.starts:,}"),
        ("most memory of a worker", f"{results.largest_bytes / 2**20:.0f} MiB"),
        ("most memory of torture itself", f"{results.own_bytes / 2**20:.0f} MiB"),
    ]


def _table(title: str) -> Table:
    table = Table(
        title=title, title_style="bold", title_justify="left", box=None, show_header=False
    )
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    return table


def _counts(results: Results) -> Table:
    table = _table(f"{results.seconds:.0f} seconds, {results.options.workers} workers")
    for name, figure in counts(results):
        table.add_row(name, figure)
    return table


def _faults(results: Results) -> Table:
    table = _table("Faults")
    for name, count in sorted(results.faults.items()):
        table.add_row(name, f"{count:,}", FAULTS[name].text)
    return table
