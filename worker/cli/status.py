"""`worker status`: what there is right now, at a glance."""

from typing import Annotated

import typer

from worker.cli import UNAVAILABLE, output, session
from worker.cli.output import console, duration, print_table, size
from worker.operations.overview import Broker, Contents, Overview, Stored, overview


def register(app: typer.Typer) -> None:
    """Add `worker status`."""
    app.command("status")(status)


def status(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show queues, dead letters, outbox, tables, orphans, migrations and versions; exits 3 where a service does not answer."""
    seen = session.run(overview(session.load_settings()))
    if json:
        output.print_json(seen)
    else:
        _print(seen)
    problems = [one for one in (seen.broker.problem, seen.database.problem) if one]
    for problem in problems:
        output.notes.print(f"worker: {problem}", markup=False)
    if problems:
        raise typer.Exit(UNAVAILABLE)


def _print(seen: Overview) -> None:
    print_table(
        "Services",
        ("service", "version", "place"),
        [
            ("RabbitMQ", seen.broker.version or "does not answer", seen.broker.place),
            ("PostgreSQL", seen.database.version or "does not answer", seen.database.place),
        ],
    )
    if not seen.broker.problem:
        _print_queues(seen.broker)
    if not seen.database.problem:
        _print_migrations(seen.database)
    if seen.database.contents:
        _print_contents(seen.database.contents)


def _print_queues(broker: Broker) -> None:
    print_table(
        "Queues (messages in a worker's hand are not counted)",
        ("family", "waiting", "consumers", "in its dead-letter queue"),
        [
            (
                one.family,
                "missing" if one.waiting is None else one.waiting,
                one.consumers,
                "missing" if one.dead_letters_waiting is None else one.dead_letters_waiting,
            )
            for one in broker.queues
        ],
    )


def _print_migrations(stored: Stored) -> None:
    applied = ", ".join(stored.migrations_applied) or "none"
    console.print(f"[bold]Migrations[/bold] applied: {applied}")
    if stored.migrations_missing:
        absent = ", ".join(stored.migrations_missing)
        console.print(f"[bold red]Missing: {absent}[/bold red]: run 'alembic upgrade head'")
    console.print()


def _print_contents(contents: Contents) -> None:
    waiting = contents.outbox
    oldest = f", the oldest for {duration(waiting.oldest_seconds)}" if waiting.rows else ""
    console.print(f"[bold]Outbox[/bold]: {waiting.rows} transactions to confirm{oldest}\n")
    print_table(
        "Unresolved dead letters",
        ("family", "reason", "letters", "oldest"),
        [
            (one.family, one.reason, one.count, duration(one.oldest_seconds))
            for one in contents.dead_letters
        ],
    )
    print_table(
        "Tables (~ estimated)",
        ("table", "kind", "rows", "on disk", "orphans", "active/archive"),
        [
            (
                one.table,
                one.kind,
                output.number(one.rows, estimated=one.estimated),
                size(one.bytes),
                contents.orphans.get(one.table, 0) if one.kind == "entity" else None,
                contents.retention.get(one.table),
            )
            for one in contents.tables
        ],
    )
