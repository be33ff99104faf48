"""`worker migrate`: the same as `alembic upgrade head`, from an installed worker too."""

from typing import Annotated

import typer

from worker.cli import output, session
from worker.operations import installation


def register(app: typer.Typer) -> None:
    """Add `worker migrate`."""
    app.command("migrate")(migrate)


def migrate(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Bring the database up to date (as `alembic upgrade head` does); safe to run again and beside running workers."""
    settings = session.load_settings("database")
    applied = session.run(installation.migrate(settings))
    if json:
        output.print_json({"database": settings.database_place, "applied": applied})
        return
    for migration in applied:
        output.console.print(f"applied {migration.version} {migration.description}", markup=False)
    text = "is up to date" if applied else "was up to date already"
    output.console.print(f"The database at {settings.database_place} {text}.", markup=False)
