"""`worker maintain`: what a timer should run every day."""

from typing import Annotated

import typer

from worker.cli import output, session
from worker.operations import upkeep
from worker.operations.retiring import Retired
from worker.store.partitions import COUNTED_ROWS, MONTHS_AHEAD


def register(app: typer.Typer) -> None:
    """Add `worker maintain`."""
    app.command("maintain")(maintain)


def maintain(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and change nothing.")
    ] = False,
    months_ahead: Annotated[
        int,
        typer.Option(min=1, max=120, help="Months after the present one to have partitions for."),
    ] = MONTHS_AHEAD,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make the monthly partitions that are missing, fold the loss ledger, seal the audit log, copy checkpoints into their archive if there is one, and let what is older than WORKER_RETENTION says leave its table, through WORKER_ARCHIVE.

    Safe to run twice and beside running workers.
    """
    settings = session.load_settings("database")
    done = session.run(upkeep.maintain(settings, months_ahead=months_ahead, dry_run=dry_run))
    if json:
        output.print_json({"dry_run": dry_run, **vars(done)})
        return
    output.print_table(
        "Partitions" + (" (dry run: nothing was changed)" if dry_run else ""),
        ("table", "would add" if dry_run else "added", "months", "rows in the default partition"),
        [
            (table.table, _span(table.added), table.months, _rows(table.default_rows))
            for table in done.tables
        ],
    )
    were = "would be" if dry_run else "were"
    output.console.print(
        f"[bold]Loss ledger[/bold]: {done.ledger_rows_folded:,} rows {were} folded into others\n"
        f"[bold]Audit log[/bold]: {done.audit_rows_sealed:,} rows {were} sealed\n"
    )
    if done.checkpoints_copied is not None:
        output.console.print(
            f"[bold]Checkpoints[/bold]: {done.checkpoints_copied:,} {were} copied into the archive\n"
        )
    _print_retired(done.retired, dry_run=dry_run)


def _print_retired(retired: list[Retired], *, dry_run: bool) -> None:
    output.print_table(
        "Retention",
        ("table", "active/archive", "would leave" if dry_run else "left", "rows", "deleted from the archive"),
        [
            (one.table, one.policy, _span(tuple(one.months)), one.rows, len(one.deleted))
            for one in retired
        ],
    )  # fmt: skip
    for sentence in (sentence for one in retired for sentence in one.kept):
        output.console.print(sentence, markup=False)
    if any(one.months for one in retired):
        output.console.print(
            "A message whose row has left is stored again if it is published or replayed again: publish and replay nothing"
            " that is as old."
        )


def _span(names: tuple[str, ...]) -> str | None:
    if not names:
        return None
    return names[0] if len(names) == 1 else f"{len(names)}: {names[0]} to {names[-1]}"


def _rows(count: int) -> int | str:
    return count if count < COUNTED_ROWS else f"{count:,} or more"
