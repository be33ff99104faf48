"""`worker run`: consume, persist, confirm, until told to stop."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import structlog
import typer
from rich.table import Table
from typer.core import TyperCommand

from worker import app as application
from worker import logs, supervisor, telemetry
from worker.cli.output import console
from worker.settings import Settings, environment_name

log = structlog.get_logger()


class _RunCommand(TyperCommand):
    """Adds every setting to the help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        console.print("Settings (environment variables; the first two are required):\n")
        console.print(settings_table())


def register(app: typer.Typer) -> None:
    """Add `worker run`."""
    app.command("run", cls=_RunCommand)(run)


def run(
    families: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Families to consume instead of all.", show_default=False),
    ] = None,
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            max=256,
            help="Worker processes; one that dies is started again. Process i serves HTTP on port + i.",
        ),
    ] = 1,
    drain: Annotated[
        bool, typer.Option("--drain", help="Stop when the queues and the outbox are empty.")
    ] = False,
    supervised: Annotated[
        bool, typer.Option("--supervised", hidden=True, help="Stop when standard input ends.")
    ] = False,
    restarts: Annotated[
        int, typer.Option(hidden=True, help="How often the supervisor has started it again.")
    ] = 0,
) -> None:
    """Consume the queues and write what arrives into PostgreSQL, until SIGTERM.

    SIGTERM or Ctrl-C finishes what is in hand and exits 0; a second one ends it at once, and what is in hand is
    delivered again.
    """
    settings = Settings.load(families=families)
    logs.configure(settings.log_level, worker=settings.name)
    names = application.chosen_families(settings.family_names)
    log.info(
        "starting",
        database=settings.database_place,
        broker=settings.broker_place,
        families=sorted(names),
        http=f"{settings.http_host}:{settings.http_port}" if settings.http_port else "off",
        processes=processes,
    )
    if processes > 1:
        raise typer.Exit(asyncio.run(supervisor.supervise(settings, processes, drain=drain)))
    if supervised:
        supervisor.follow_parent()
        telemetry.restarts.inc(restarts)
    _run(application.run(settings, until_drained=drain))


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop where it is installed."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(work)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    try:
        import uvloop  # noqa: PLC0415 (it may not be installed)
    except ImportError:
        return None
    return uvloop.new_event_loop


def settings_table() -> Table:
    """Every setting: its variable, its default, what it means."""
    table = Table("variable", "default", "meaning", box=None, pad_edge=False, header_style="bold")
    for name, field in Settings.model_fields.items():
        table.add_row(environment_name(name), _default(name), field.description or "")
    return table


def _default(name: str) -> str:
    field = Settings.model_fields[name]
    if field.is_required():
        return "(required)"
    if field.default_factory is not None:
        return "host-pid"
    if field.default is None:
        return "none"
    if isinstance(field.default, bool):
        return str(field.default).lower()
    if isinstance(field.default, int) and field.default >= 1024 * 1024:
        return f"{field.default} ({field.default // 1024**2} MiB)"
    return str(field.default)
