"""`worker archive`: months that were retired, whether they are whole, and how one comes back."""

from typing import Annotated

import typer

from worker.cli import output, session
from worker.operations.archive_files import Archive, Part, parse_month
from worker.operations.archive_restore import KEEP_DAYS, Restored
from worker.operations.archive_restore import restore as operation
from worker.operations.services import open_database, patient, require_migrations
from worker.settings import Settings

group = typer.Typer(help="The archive of months that were retired.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add `worker archive`."""
    app.add_typer(group, name="archive")


@group.callback()
def _group() -> None:
    """The archive of months that were retired."""


@group.command("list")
def list_parts(
    table: Annotated[str | None, typer.Option(help="Of this table only.")] = None,
    json: Json = False,
) -> None:
    """List what WORKER_ARCHIVE holds; the database is not needed."""
    archive = Archive(session.load_settings("neither").archive)
    parts = archive.parts(table)
    if json:
        output.print_json([{**vars(part), "file": part.file, "bytes": archive.size(part)} for part in parts])  # fmt: skip
        return
    output.print_table(
        f"Archive {archive.folder}",
        ("table", "month", "rows", "size", "archived", "held until", "file"),
        [
            (
                part.table,
                part.month,
                part.rows,
                "missing" if (size := archive.size(part)) is None else output.size(size),
                part.archived_at,
                part.held_until,
                part.file,
            )
            for part in parts
        ],
        empty="nothing",
    )


@group.command()
def verify(
    table: Annotated[str | None, typer.Option(help="Of this table only.")] = None,
    json: Json = False,
) -> None:
    """Read every file of the archive and hold it against its manifest; exits 1 where one is damaged or missing."""
    archive = Archive(session.load_settings("neither").archive)
    parts = archive.parts(table)
    wrong = [(part, told) for part in parts if (told := archive.verify(part)) is not None]
    if json:
        output.print_json(
            {"files": len(parts), "wrong": [{"file": part.file, "what": told} for part, told in wrong]}
        )  # fmt: skip
    else:
        _print_wrong(len(parts), wrong)
    if wrong:
        raise typer.Exit(1)


def _print_wrong(count: int, wrong: list[tuple[Part, str]]) -> None:
    for _, told in wrong:
        output.console.print(told, markup=False)
    output.console.print(f"{count:,} files, {len(wrong):,} of them not as they were written")


@group.command()
def restore(
    table: Annotated[str, typer.Argument(help="The table, such as conversation_history.")],
    month: Annotated[str, typer.Argument(help="The month, such as 2026-01.")],
    keep_days: Annotated[
        int,
        typer.Option(
            min=1, max=3650, help="Days that it stays before `worker maintain` retires it again."
        ),
    ] = KEEP_DAYS,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would come back and change nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Bring a month back into its table, all of it or nothing; the archive keeps it too. Safe to run twice and beside running workers."""
    settings = session.load_settings("database")
    parse_month(month)
    archive = Archive(settings.archive)
    done = session.run(_restore(settings, archive, table, month, keep_days, dry_run=dry_run))
    if json:
        output.print_json({"dry_run": dry_run, **vars(done)})
    else:
        _print_restored(done, dry_run=dry_run)


async def _restore(
    settings: Settings, archive: Archive, table: str, month: str, keep_days: int, *, dry_run: bool
) -> Restored:
    async with open_database(patient(settings)) as database:
        await require_migrations(database, settings)
        return await operation(
            database, archive, table, month, keep_days=keep_days, dry_run=dry_run
        )


def _print_restored(done: Restored, *, dry_run: bool) -> None:
    were = "would come back (dry run: nothing was changed)" if dry_run else "came back"
    told = [f"{done.rows:,} rows of {done.table} {done.month} {were}"]
    if done.present:
        told.append(
            f"{done.present:,} are in the table and stay as they are there; {done.differing:,} of them say something else"
            " than the archive"
        )
    if done.erased:
        told.append(
            f"{done.erased:,} stay in the archive: they, or their owners, were erased since"
        )
    if done.placeholders:
        told.append(f"{done.placeholders:,} owners that are gone were made placeholders")
    if done.held_until:
        told.append(f"'worker maintain' leaves the month alone until {done.held_until}")
    output.console.print("\n".join(told), markup=False)
