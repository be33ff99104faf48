"""`worker checkpoints`: copies of checkpoints outside of the database, and a checkpoint from either place."""

from typing import Annotated
from uuid import UUID

import typer

from worker.cli import output, session
from worker.errors import WorkerError
from worker.operations import checkpoints
from worker.operations.checkpoints import Checkpoint
from worker.operations.services import open_database, require_migrations
from worker.settings import Settings

group = typer.Typer(help="Checkpoints of runs, and their archived copies.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add `worker checkpoints`."""
    app.add_typer(group, name="checkpoints")


@group.callback()
def _group() -> None:
    """Checkpoints of runs, and their archived copies."""


@group.command()
def archive(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how many would be copied and change nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Copy every checkpoint that has no copy yet into WORKER_CHECKPOINT_ARCHIVE, as compressed JSON; safe to run twice."""
    settings = session.load_settings("database")
    checkpoints.archive_folder(settings.checkpoint_archive)
    copied = session.run(_archive(settings, dry_run=dry_run))
    if json:
        output.print_json({"dry_run": dry_run, "copied": copied})
        return
    were = "would be copied (dry run: nothing was changed)" if dry_run else "were copied"
    output.console.print(f"{copied:,} checkpoints {were}")


async def _archive(settings: Settings, *, dry_run: bool) -> int:
    folder = checkpoints.archive_folder(settings.checkpoint_archive)
    async with open_database(settings) as database:
        await require_migrations(database, settings)
        if dry_run:
            return await checkpoints.waiting(database)
        return await checkpoints.archive(database, folder)


@group.command()
def show(
    checkpoint: Annotated[UUID, typer.Argument(help="The checkpoint's id.")],
    tenant: Annotated[str, typer.Option(help="The tenant that it belongs to.")] = "default",
    from_archive: Annotated[
        bool,
        typer.Option(
            "--from-archive",
            help="Read the copy in WORKER_CHECKPOINT_ARCHIVE; the database is not needed.",
        ),
    ] = False,
    snapshot: Annotated[
        bool,
        typer.Option(
            "--snapshot", help="Print the snapshot alone, as JSON, to restore a run from."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Show a checkpoint, from its row or from its archived copy."""
    if from_archive:
        settings = session.load_settings("neither")
        folder = checkpoints.archive_folder(settings.checkpoint_archive)
        found = checkpoints.read_copy(folder, checkpoint, tenant)
    else:
        found = session.run(_read_row(session.load_settings("database"), checkpoint, tenant))
    if found is None:
        place = "the archive" if from_archive else "the database"
        raise WorkerError(f"{place} holds no checkpoint {checkpoint} of the tenant {tenant}")
    _print(found, snapshot=snapshot, json=json)


async def _read_row(settings: Settings, checkpoint: UUID, tenant: str) -> Checkpoint | None:
    async with open_database(settings) as database:
        await require_migrations(database, settings)
        return await checkpoints.read_row(database, checkpoint, tenant)


def _print(found: Checkpoint, *, snapshot: bool, json: bool) -> None:
    if snapshot and found.snapshot is None:
        reference = found.columns.get("context_snapshot_ref") or {}
        raise WorkerError(
            f"its snapshot lies elsewhere: {reference.get('uri')} (sha256 {reference.get('sha256')})"
        )
    if snapshot or json:
        output.print_json(found.snapshot if snapshot else found.columns)
        return
    rows = [(name, value) for name, value in found.columns.items() if name != "context_snapshot"]
    output.print_table("Checkpoint", ("column", "value"), rows)
    output.print_json(found.snapshot)
