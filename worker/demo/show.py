"""What a person sees: steps as they are done, the state of affairs while messages flow, and tables at the end.

On a terminal the state is redrawn in place; elsewhere it is a line a second. No step depends on which it is.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from contracts.confirmation import REASONS
from worker.demo.ledger import Findings, Hearing, Ledger
from worker.demo.processes import WorkerProcess
from worker.demo.terminal import Terminal
from worker.store.schema import Kind, metadata

_COLOURS = {"starting": "yellow", "running": "green", "killed": "red", "stopped": "dim"}

_TABLES = {
    "tasks": "one row a task, folded from all that was said about it",
    "training_jobs": "one row a training job, folded likewise",
    "lifecycle_events": "what was said about tasks and training jobs, word for word",
    "execution_logs": "one row a step of a task",
    "trajectories": "one row a run that was rewarded",
    "policy_checkpoints": "one row a policy that was saved",
    "task_dependencies": "one row a pair of tasks of which one waits for the other",
}


class Screen(Terminal):
    """Where the demonstration tells its story."""

    def introduce(self) -> None:
        """What will be seen."""
        self.console.print(
            "Agents publish what they do to RabbitMQ. Workers write it into PostgreSQL, each message exactly once, "
            "confirm it, and keep what is wrong as dead letters. One worker will be killed on the way.\n"
        )

    @contextlib.asynccontextmanager
    async def live(
        self, ledger: Ledger, hearing: Hearing, workers: Sequence[WorkerProcess]
    ) -> AsyncIterator[None]:
        """Show the state of affairs as long as the block lasts."""
        if self.console.is_terminal:
            begin = time.monotonic()
            with Live(
                console=self.console,
                get_renderable=lambda: _state(ledger, hearing, workers, time.monotonic() - begin),
                refresh_per_second=8,
                transient=True,
            ):
                yield
            return
        printing = asyncio.create_task(self._print_regularly(ledger))
        try:
            yield
        finally:
            printing.cancel()

    async def _print_regularly(self, ledger: Ledger) -> None:
        last = ""
        while True:
            await asyncio.sleep(1)
            line = (
                f"{ledger.published:,} published, {ledger.answers['persisted']:,} persisted, "
                f"{ledger.answers['duplicate']:,} duplicates, {ledger.under_way:,} under way"
            )
            if line != last:
                self.say(line)
            last = line

    def results(self, ledger: Ledger, hearing: Hearing, findings: Findings) -> None:
        """The tables at the end, what was checked, and the sentence that it all comes down to."""
        for table in (_outcomes(ledger, hearing, findings), _letters(findings), _rows(findings)):
            self.console.print()
            self.console.print(table)
        self.console.print()
        self.step("Is every message accounted for?")
        for check in findings.checks:
            mark = ("yes  ", "green") if check.holds else ("NO   ", "bold red")
            found = "" if check.holds else f" ({check.found})"
            self.indented(Text.assemble(mark, check.text, found))
        self.console.print()
        if findings.balanced:
            text = (
                f"Every message is accounted for: {ledger.published:,} published = {len(ledger.times):,} stored "
                f"+ {ledger.repeated:,} repetitions + {findings.letters.total():,} dead letters.\n"
                "Nothing was lost and nothing is stored twice, although a worker was killed in the middle."
            )
            self.console.print(Text(text, style="bold green"))
        else:
            self.console.print(Text("No: something is missing or too much.", style="bold red"))

    def farewell(self) -> None:
        """What happens now, and what could happen instead."""
        self.console.print(
            "\nBroker and database are thrown away now. 'worker demo --keep' leaves them running, to look around."
        )

    def look_around(self, *, database_url: str, amqp_url: str, port: int, log: Path) -> None:
        """How to see more of what is running."""
        self.plain()
        self.step("Everything is left running until Ctrl-C. In another terminal:")
        query = "SELECT status, count(*) FROM tasks GROUP BY status"
        self.plain(
            f"""
export DATABASE_URL='{database_url}'
export AMQP_URL='{amqp_url}'
worker status
worker dead-letters list
psql "$DATABASE_URL" -c '{query}'
curl http://127.0.0.1:{port}/metrics
tail -f {log}"""
        )


def _state(
    ledger: Ledger, hearing: Hearing, workers: Sequence[WorkerProcess], seconds: float
) -> Group:
    """The state of affairs while messages flow."""
    figures = Table.grid(padding=(0, 3))
    for _ in range(6):
        figures.add_column(justify="right", min_width=9)
    names = ("published", "persisted", "duplicates", "refused", "under way", "a second")
    figures.add_row(*(Text(name, style="dim") for name in names))
    counts = (
        ledger.published,
        ledger.answers["persisted"],
        ledger.answers["duplicate"],
        hearing.outcomes["rejected"],
        ledger.under_way,
        round(ledger.rate),
    )
    figures.add_row(*(Text(f"{count:,}", style="bold") for count in counts))
    line = Text(f"    {seconds:4.1f} s   ")
    for worker in workers:
        line.append(f"{worker.name} ")
        line.append(worker.state, style=_COLOURS[worker.state])
        line.append("   ")
    return Group(Text(), _indented(figures), Text(), line)


def _indented(table: Table) -> Table:
    outer = Table.grid(padding=(0, 4))
    outer.add_row("", table)
    return outer


def _table(title: str, *columns: str) -> Table:
    """A table whose second column holds numbers."""
    table = Table(
        title=title,
        title_style="bold",
        title_justify="left",
        box=None,
        pad_edge=False,
        show_header=bool(columns),
    )
    for name in columns or ("", "", ""):
        table.add_column(name, header_style="dim")
    table.columns[1].justify = "right"
    return table


def _outcomes(ledger: Ledger, hearing: Hearing, findings: Findings) -> Table:
    table = _table(f"What became of {ledger.published:,} messages")

    def row(name: str, number: int, remark: str = "", style: str = "") -> None:
        table.add_row(f"  {name}", f"{number:,}", Text(remark, style="dim"), style=style)

    row("published", ledger.published, "in no particular order", "bold")
    row("  good ones", len(ledger.times), "each for the first time")
    row("  repetitions", ledger.repeated, "good ones published a second time, on purpose")
    row("  bad ones", ledger.mistakes.total(), "wrong on purpose, in several ways")
    remark = "answered so to the agent, after the commit"
    if (late := ledger.answers["persisted"] - len(ledger.times)) > 0:
        remark += f"; {late:,} of them repetitions that the killed worker had in hand"
    row("persisted", ledger.answers["persisted"], remark)
    row("duplicates", ledger.answers["duplicate"], "recognised: nothing was written")
    row("dead letters", findings.letters.total(), "kept whole, with the reason")
    row(
        "confirmations",
        sum(hearing.outcomes.values()),
        "heard by one who listens to all of them, one or more a message",
    )
    row(
        "messages a second", round(ledger.rate), "from an agent's publish to the answer, all in all"
    )
    return table


def _letters(findings: Findings) -> Table:
    table = _table("Dead letters", "  reason", "number", "what it means")
    for reason, number in sorted(findings.letters.items()):
        table.add_row(f"  {reason}", f"{number:,}", REASONS.get(reason, ""))
    return table


def _rows(findings: Findings) -> Table:
    table = _table("Rows in the database", "  table", "rows", "")
    for name, number in findings.rows.items():
        if not number:  # a family that is not demonstrated
            continue
        entity = metadata.tables[name].info.get("kind") == Kind.ENTITY
        usual = "one row a thing" if entity else "one row a message"
        table.add_row(f"  {name}", f"{number:,}", Text(_TABLES.get(name, usual), style="dim"))
    return table
