"""`worker dead-letters`: what was rejected, and what to do about it."""

import sys
from typing import Annotated, Any

import typer

from worker.cli import letter_editing, letter_files, output, session
from worker.cli.letter_filters import with_filters
from worker.cli.letter_text import print_letter, print_listing, printable
from worker.cli.output import notes, print_table
from worker.cli.progress import progress
from worker.dead_letters import replay, resolution, search
from worker.dead_letters.letter import Letter
from worker.dead_letters.search import Filters
from worker.errors import Misconfigured, Unavailable
from worker.operations.services import open_database
from worker.settings import Settings

_LISTED = 50
_FAILURES_SHOWN = 20

group = typer.Typer(
    name="dead-letters",
    help="List, show, edit, replay, discard and move messages that were rejected.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add `worker dead-letters`."""
    for name, command in (("list", list_letters), ("show", show), ("replay", replay_letters)):
        group.command(name)(command)
    letter_editing.add_to(group)
    group.command("discard")(discard)
    letter_files.add_to(group)
    app.add_typer(group)


@with_filters
def list_letters(filters: Filters, json: Json = False) -> None:
    """List dead letters, the newest first (50 unless --limit says otherwise)."""
    settings = session.load_settings("database")
    limited = Filters(**{**vars(filters), "limit": filters.limit or _LISTED})

    async def work() -> search.Listing:
        async with open_database(settings) as database:
            return await search.listing(database, limited)

    listing = session.run(work())
    if json:
        output.print_json(listing)
    else:
        what = {"all": "in all", "resolved": "resolved", "unresolved": "unresolved"}[filters.state]
        print_listing(listing, what)


def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="The id, or its first digits.")],
    json: Json = False,
    body: Annotated[
        bool, typer.Option("--body", help="Write only the body, byte for byte as it came.")
    ] = False,
) -> None:
    """Show everything about one dead letter, its errors and its whole body."""
    settings = session.load_settings("database")

    async def work() -> Letter:
        async with open_database(settings) as database:
            return await search.find(database, letter_id)

    letter = session.run(work())
    if body:
        sys.stdout.buffer.write(letter.body)
        sys.stdout.buffer.flush()
    elif json:
        output.print_json(letter.as_json(settings.max_body_bytes))
    else:
        print_letter(letter, settings.max_body_bytes)


@with_filters
def replay_letters(
    filters: Filters,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be published where.")
    ] = False,
    rate: Annotated[float | None, typer.Option(min=0.001, help="At most so many a second.")] = None,
    by_type: Annotated[
        bool,
        typer.Option(
            "--by-type",
            help="Publish to agent.messages by the event's type, wherever it was published before.",
        ),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until each is stored, or rejected again.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="With --wait: seconds without news to give up after.")
    ] = 60,
    json: Json = False,
) -> None:
    """Publish dead letters again, edited ones as edited; a letter is resolved once a worker has stored it.

    Exits 1 if some could not be published (or, with --wait, were not stored).
    """
    settings = session.load_settings("both")
    if dry_run:
        _print_routes(settings, filters, by_type=by_type, json=json)
        return
    done, waited = session.run(_replay(settings, filters, rate, by_type, timeout if wait else None))
    if json:
        output.print_json(_as_json(done, waited))
    else:
        _print_replayed(done, waited)
    if done.failures or (waited and (waited.rejected or waited.unanswered)):
        raise typer.Exit(1)


async def _replay(
    settings: Settings, filters: Filters, rate: float | None, by_type: bool, patience: float | None
) -> tuple[replay.Replayed, resolution.Waited | None]:
    async with open_database(settings) as database:
        wanted = await search.chosen(database, filters)
        with progress("Replaying", len(wanted)) as advance:
            work = replay.Replay(
                database,
                settings.broker,
                name=f"{settings.name} replay",
                max_bytes=settings.max_body_bytes,
                rate=rate,
                by_type=by_type,
                user_id=settings.publishing_user,
                advance=advance,
            )
            try:
                async with work:
                    await work.run(wanted, filters.state)
            except Unavailable:
                notes.print(f"{len(work.done.published):,} letters were replayed before this:")
                raise
        if patience is None:
            return work.done, None
        with progress("Waiting", len(work.done.published)) as advance:
            waited = await resolution.wait(
                database, work.done.published, patience=patience, advance=advance
            )
        return work.done, waited


def _print_routes(settings: Settings, filters: Filters, *, by_type: bool, json: bool) -> None:
    async def work() -> list[dict[str, Any]]:
        async with open_database(settings) as database:
            wanted = await search.chosen(database, filters)
            counts = await replay.routes(
                database, wanted, by_type=by_type, max_bytes=settings.max_body_bytes
            )
        names = ("family", "reason", "exchange", "routing_key")
        return [{**dict(zip(names, to, strict=True)), "letters": n} for to, n in counts.items()]

    found = session.run(work())
    if json:
        output.print_json({"routes": found})
    else:
        rows = [[printable(v) if isinstance(v, str) else v for v in one.values()] for one in found]
        columns = ("family", "reason", "to exchange", "with routing key", "letters")
        print_table("A replay would publish", columns, rows, empty="nothing")


def _as_json(done: replay.Replayed, waited: resolution.Waited | None) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "published": len(done.published),
        "failed": [{"id": key, "why": why} for key, why in done.failures.items()],
        "skipped": done.skipped,
    }
    if waited is not None:
        answer["resolved"] = waited.resolved.total()
        answer["rejected"] = [{"id": key, "reason": why} for key, why in waited.rejected.items()]
        answer["unanswered"] = waited.unanswered
    return answer


def _print_replayed(done: replay.Replayed, waited: resolution.Waited | None) -> None:
    rows: list[tuple[str, int]] = [("published", len(done.published))]
    rows += [("not published", len(done.failures))] if done.failures else []
    rows += [("resolved by others meanwhile", done.skipped)] if done.skipped else []
    if waited is not None:
        rows.append(("resolved", waited.resolved.total()))
        rows.append(("rejected again", len(waited.rejected)))
        rows.append(("without an answer", len(waited.unanswered)))
    print_table("Replay", ("", "letters"), rows)
    again = waited.rejected if waited else {}
    problems = {**done.failures, **{key: f"rejected again: {why}" for key, why in again.items()}}
    if problems:
        shown = [(key, printable(why)) for key, why in list(problems.items())[:_FAILURES_SHOWN]]
        print_table(f"Problems ({len(shown)} of {len(problems):,})", ("letter", "why"), shown)


@with_filters
def discard(
    filters: Filters,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Resolve dead letters as discarded; they stay in the table, and can be replayed with --all."""
    settings = session.load_settings("database")

    async def work() -> int:
        async with open_database(settings) as database:
            wanted = [letter_id for letter_id, _ in await search.chosen(database, filters)]
            if wanted and not yes:
                _ask(len(wanted))
            return await resolution.discard(database, wanted)

    discarded = session.run(work())
    if json:
        output.print_json({"discarded": discarded})
    else:
        output.console.print(f"{discarded:,} discarded")


def _ask(count: int) -> None:
    """Raises Misconfigured where nobody can answer, Abort where the answer is no."""
    if not sys.stdin.isatty():
        raise Misconfigured(f"{count:,} letters would be discarded: say --yes to do so unasked")
    typer.confirm(f"Discard {count:,} letters?", abort=True)
