"""`worker dead-letters edit`."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import click
import typer

from worker.cli import session
from worker.cli.letter_text import printable
from worker.cli.output import console, notes
from worker.dead_letters import editing, search
from worker.dead_letters.letter import Letter
from worker.errors import Misconfigured
from worker.operations.services import open_database
from worker.settings import Settings
from worker.store.database import Database

_ERRORS_SHOWN = 20


def add_to(group: typer.Typer) -> None:
    """Add the command."""
    group.command("edit")(edit)


def edit(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="The id, or its first digits.")],
    body: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Take this as the body; - is standard input."),
    ] = None,
    settings_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="Set a member, such as data.step_number=3; repeatable.",
        ),
    ] = None,
    removals: Annotated[
        list[str] | None,
        typer.Option("--unset", metavar="PATH", help="Remove a member; repeatable."),
    ] = None,
    revert: Annotated[
        bool, typer.Option("--revert", help="Forget the edited body; the original is replayed.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Store it although the worker would reject it.")
    ] = False,
) -> None:
    """Mend the body of a dead letter, in $EDITOR unless --body, --set or --unset say how.

    The original stays beside it; a replay publishes the edited one. Exits 1, with nothing stored, where the worker
    would reject it.
    """
    if sum((body is not None, bool(settings_ or removals), revert)) > 1:
        raise typer.BadParameter("--body, --set with --unset, and --revert exclude one another")
    settings = session.load_settings("database")

    async def work() -> None:
        async with open_database(settings) as database:
            letter = await search.find(database, letter_id)
            if letter.resolution in ("replayed", "edited") and not force:
                raise Misconfigured(
                    f"letter {letter.id} is resolved ({letter.resolution}): its message is stored; --force edits it all the same"
                )
            if revert:
                await editing.store(database, letter, None)
                console.print("The original body will be replayed.")
                return
            changed = _change(letter, settings, body, settings_ or [], removals or [], force=force)
            await _store(database, letter, changed)

    session.run(work())


def _change(
    letter: Letter,
    settings: Settings,
    body: Path | None,
    sets: list[str],
    removals: list[str],
    *,
    force: bool,
) -> bytes | None:
    """The new body; None where nothing was changed. Exits 1 where the worker would reject it."""
    before = editing.to_edit(letter, settings.max_body_bytes)
    if body is None and not sets and not removals:
        return _in_editor(before, settings, force=force)
    after = _read(body) if body is not None else editing.changed(before, sets, removals)
    if not _accepted(after, settings) and not force:
        raise typer.Exit(1)
    return after


async def _store(database: Database, letter: Letter, body: bytes | None) -> None:
    if body is None:
        notes.print("Nothing was changed, so nothing is stored.")
        return
    await editing.store(database, letter, body)
    console.print(f"Stored. Replay it with: worker dead-letters replay {letter.id}")


def _in_editor(before: bytes, settings: Settings, *, force: bool) -> bytes | None:
    """What an editor makes of it, again and again until it is good or given up; an edit is never lost."""
    descriptor, name = tempfile.mkstemp(prefix="dead-letter-", suffix=".json")
    path = Path(name)
    with os.fdopen(descriptor, "wb") as file:
        file.write(before)
    while True:
        click.edit(filename=name)
        after = path.read_bytes()
        if after == before:
            path.unlink()
            return None
        if _accepted(after, settings) or force:
            path.unlink()
            return after
        if not sys.stdin.isatty() or not typer.confirm("Edit again?", default=True):
            notes.print(f"Nothing is stored; your edit is in {name}", markup=False)
            raise typer.Exit(1)


def _accepted(body: bytes, settings: Settings) -> bool:
    """Whether the worker would take it; if not, every error is told."""
    errors = editing.check(body, settings.max_body_bytes)
    for error in errors[:_ERRORS_SHOWN]:
        place = ".".join(str(part) for part in error["loc"])
        notes.print(printable(f"{place or 'body'}: {error['msg']} ({error['type']})"), markup=False)
    if len(errors) > _ERRORS_SHOWN:
        notes.print(f"and {len(errors) - _ERRORS_SHOWN} more")
    if errors:
        notes.print("The worker would reject this body (--force stores it all the same).")
    return not errors


def _read(path: Path) -> bytes:
    if path == Path("-"):
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from error
