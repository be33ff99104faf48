"""`worker seed`: data to look at, to test with, or to try an installation with."""

from typing import Annotated

import typer

from worker.cli import output, session
from worker.operations.seed import seed as store_seed


def register(app: typer.Typer) -> None:
    """Add `worker seed`."""
    app.command("seed")(seed)


def seed(
    name: Annotated[
        str,
        typer.Argument(
            metavar="dev|test|prod",
            help="dev: tasks in every state, and the examples of all else; test: the examples of every type; "
            "prod: one completed task.",
        ),
    ],
    tenant: Annotated[str, typer.Option(help="The tenant that the data are of.")] = "default",
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Seed dev or test although the database looks like production."
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Store seed data as events, with the same ids in every run: what is there already stays as it is.

    Refuses dev and test, with exit code 2, where the database looks like production: by its name or its host's, or
    because it holds what agents have published.
    """
    settings = session.load_settings("database")
    done = session.run(store_seed(settings, name, tenant=tenant, force=force))
    if json:
        output.print_json(done)
        return
    output.print_table(
        f"Seed {done.seed}, tenant {done.tenant}", ("table", "events"), done.tables.items()
    )
    for told in done.left_out:
        output.notes.print(
            f"worker: left out, as it contradicts another example: {told}", markup=False
        )
    there = done.events - done.stored
    output.console.print(f"{done.stored:,} events stored, {there:,} were there already")
