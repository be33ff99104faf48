"""`worker dead-letters export` and `import`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from worker.cli import output, session
from worker.cli.letter_filters import with_filters
from worker.cli.output import notes
from worker.cli.progress import progress
from worker.dead_letters import transfer
from worker.dead_letters.collect import Collector
from worker.dead_letters.search import Filters
from worker.errors import Misconfigured, WorkerError
from worker.operations.services import open_broker, open_database
from worker.settings import Settings

_BAD_SHOWN = 20

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(group: typer.Typer) -> None:
    """Add both."""
    group.command("export")(export)
    group.command("import")(import_)


@with_filters
def export(
    filters: Filters,
    to: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is standard output.")
    ] = Path("-"),
) -> None:
    """Write dead letters as JSON lines: the whole row, bodies as base64 and, where they are text, as text too."""
    settings = session.load_settings("database")

    async def work() -> int:
        count = 0
        async with open_database(settings) as database:
            with _writing(to) as out, progress("Exporting", None) as advance:
                async for line in transfer.export(database, filters, settings.max_body_bytes):
                    out.write(line.encode(errors="replace") + b"\n")
                    count += 1
                    advance(1)
        return count

    count = session.run(work())
    notes.print(f"{count:,} letters exported")


@contextmanager
def _writing(path: Path) -> Iterator[BinaryIO]:
    if path == Path("-"):
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with path.open("wb") as out:
            yield out
    except OSError as error:
        raise Misconfigured(f"{path} cannot be written: {error.strerror}") from error


def import_(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE.jsonl]", help="An export; - is standard input.")
    ] = None,
    queue: Annotated[
        str | None, typer.Option(help="Take every message of this queue instead.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Add the letters of an export that are not there yet, or every message of a queue, which is emptied by it.

    Exits 1 if some line of a file is no letter; the others are added all the same.
    """
    if (file is None) == (queue is None):
        raise typer.BadParameter("give either the FILE of an export or --queue NAME")
    if queue is not None:
        _import_queue(session.load_settings("both"), queue, json=json)
    elif file is not None:
        _import_file(session.load_settings("database"), file, json=json)


def _import_queue(settings: Settings, queue: str, *, json: bool) -> None:
    async def work() -> int:
        async with open_database(settings) as database, open_broker(settings) as connection:
            with progress(f"Emptying {queue}", None) as advance:
                collector = Collector(database, connection, queue, settings, advance)
                try:
                    return await collector.run()
                except WorkerError:
                    if collector.copied:
                        notes.print(f"{collector.copied:,} messages were copied before this:")
                    raise

    copied = session.run(work())
    if json:
        output.print_json({"copied": copied})
    else:
        output.console.print(f"{copied:,} messages of {queue} are dead letters now", markup=False)


def _import_file(settings: Settings, file: Path, *, json: bool) -> None:
    async def work() -> transfer.Imported:
        async with open_database(settings) as database:
            with _reading(file) as lines, progress("Importing bytes", _size(file)) as advance:
                return await transfer.import_lines(database, lines, advance)

    result = session.run(work())
    for number, why in list(result.bad.items())[:_BAD_SHOWN]:
        notes.print(f"line {number}: {why}", markup=False)
    if json:
        output.print_json(
            {
                "new": result.new,
                "known": result.known,
                "bad": [{"line": number, "why": why} for number, why in result.bad.items()],
            }
        )
    else:
        output.console.print(
            f"{result.new:,} letters added, {result.known:,} were there already, "
            f"{len(result.bad):,} lines are no letters"
        )
    if result.bad:
        raise typer.Exit(1)


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    if path == Path("-"):
        yield sys.stdin.buffer
        return
    try:
        with path.open("rb") as lines:
            yield lines
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from error


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
