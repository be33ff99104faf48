"""`worker publish`: events from a file to the broker, and what became of them."""

import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from contracts.limits import MAX_BATCH_EVENTS
from worker.cli import output, session
from worker.cli.letter_text import printable
from worker.cli.output import console, notes, print_table
from worker.cli.progress import progress
from worker.errors import Misconfigured, Unavailable
from worker.publishing.lines import lines_of
from worker.publishing.published import Published
from worker.publishing.publishing import Publishing
from worker.settings import Settings

_PROBLEMS_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add `worker publish`."""
    app.command("publish")(publish)


def publish(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE.jsonl", help="One CloudEvent a line; - is standard input."),
    ],
    *,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="At most so many events a second.")
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, max=MAX_BATCH_EVENTS, help="Events of one family in one message.")
    ] = 1,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until a worker has said what became of each.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds without any answer to give up after.")
    ] = 120,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Publish events with publisher confirms, whether or not they are valid: that is for the workers to say.

    Exits 1 if a line could not be published, or, with --wait, if an event was rejected or not answered.
    """
    settings = session.load_settings("broker")
    started = time.monotonic()
    with _reading(file) as lines:
        done = session.run(_publish(settings, lines, rate, batch, timeout, wait=wait))
    seconds = time.monotonic() - started
    if json:
        output.print_json(_as_json(done, seconds, wait=wait))
    else:
        _print(done, seconds, wait=wait)
    if done.bad_lines or done.not_accepted or not done.complete:
        raise typer.Exit(1)
    if wait and (done.unanswered or done.outcomes["rejected"]):
        raise typer.Exit(1)


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    if path == Path("-"):
        yield sys.stdin.buffer
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from error
    with file:
        yield file


async def _publish(
    settings: Settings,
    file: BinaryIO,
    rate: float | None,
    batch: int,
    patience: float,
    *,
    wait: bool,
) -> Published:
    with progress("Publishing bytes", _size(file)) as advance:
        publishing = Publishing(
            settings.broker,
            name=f"{settings.name} publish",
            rate=rate,
            batch=batch,
            wait=wait,
            patience=patience,
            user_id=settings.publishing_user,
            advance=advance,
        )
        try:
            async with publishing:
                return await publishing.run(lines_of(file))
        except Unavailable:
            notes.print(f"{publishing.done.accepted:,} events were published before this:")
            raise


def _size(file: BinaryIO) -> int | None:
    """The size of a regular file."""
    status = None if file is sys.stdin.buffer else Path(file.name).stat()
    return status.st_size if status and stat.S_ISREG(status.st_mode) else None


def _as_json(done: Published, seconds: float, *, wait: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "lines": done.lines,
        "events": done.events,
        "published": done.accepted,
        "bad_lines": done.bad_lines,
        "not_accepted": done.not_accepted,
        "complete": done.complete,
        "seconds": round(seconds, 3),
    }
    if wait:
        names = ("persisted", "duplicate", "rejected")
        answer["outcomes"] = {name: done.outcomes[name] for name in names}
        answer["reasons"] = dict(done.reasons)
        answer["unanswered"] = done.unanswered
    answer["problems"] = [{"line": one.line, "why": one.why} for one in done.problems]
    return answer


def _print(done: Published, seconds: float, *, wait: bool) -> None:
    problems = sorted(done.problems, key=lambda problem: problem.line)
    for problem in problems[:_PROBLEMS_SHOWN]:
        notes.print(f"line {problem.line}: {printable(problem.why)}", markup=False)
    count = done.bad_lines + done.not_accepted + done.outcomes["rejected"] + done.unanswered
    if count > _PROBLEMS_SHOWN:
        notes.print(f"and {count - _PROBLEMS_SHOWN:,} more")
    rows: list[tuple[str, int]] = [("published", done.accepted)]
    rows += [("lines that are no event", done.bad_lines)] if done.bad_lines else []
    rows += [("not taken by the broker", done.not_accepted)] if done.not_accepted else []
    if wait:
        rows += [(name, done.outcomes[name]) for name in ("persisted", "duplicate", "rejected")]
        rows += [(f"  {name}", n) for name, n in sorted(done.reasons.items())]
        rows.append(("without an answer", done.unanswered))
    rate = done.accepted / seconds if seconds else 0
    console.print(f"{done.lines:,} lines in {seconds:.1f} s ({rate:,.0f} events a second)\n")
    print_table("Events", ("", ""), rows)
    if not done.complete:
        notes.print("The rest of the file was not published: no worker answers. Is one running?")
