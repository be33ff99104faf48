"""`worker bench`: how fast this installation is, and where the time goes."""

from typing import Annotated, Literal

import typer
from rich.console import Console

from worker.cli import output
from worker.errors import Unavailable

INTERRUPTED = 130


def register(app: typer.Typer) -> None:
    """Add `worker bench`."""
    app.command("bench")(bench)


def bench(
    *,
    seconds: Annotated[
        float, typer.Option(min=3, max=3600, help="About how long to measure.")
    ] = 30,
    messages: Annotated[
        int | None,
        typer.Option(min=100, max=100_000, help="Size of the backlog; else what the time allows."),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, max=32, help="How many worker processes to measure.")
    ] = 1,
    family: Annotated[
        Literal["execution-log", "task-lifecycle", "trajectory", "mix"],
        typer.Option(
            help="What is published: one family, or 70 % logs, 20 % tasks, 10 % trajectories."
        ),
    ] = "mix",
    own_services: Annotated[
        bool,
        typer.Option("--own-services", help="Run in services of its own, whatever is given."),
    ] = False,
    database: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The database of DATABASE_URL: it is a scratch one."),
    ] = None,
    virtual_host: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The virtual host of AMQP_URL: it is a scratch one."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Measure rate, latency and CPU, each stage alone and all together, and say which stage is the limit.

    Without DATABASE_URL and AMQP_URL it starts services of its own. With them it works there, if they name an empty
    database and virtual host whose names begin with "bench", or are given by name here; it refuses all others, and
    removes what it made. Exits 0 only if every message has its row and its confirmation.
    """
    # Imported here, for no other command needs a sandbox.
    from worker.bench.run import BENCH, Options, bench  # noqa: PLC0415
    from worker.bench.show import show  # noqa: PLC0415
    from worker.demo.terminal import Terminal  # noqa: PLC0415
    from worker.sandbox import SandboxError  # noqa: PLC0415
    from worker.torture.ground import Wish  # noqa: PLC0415

    options = Options(
        seconds, messages, processes, family, Wish(own_services, database, virtual_host, BENCH)
    )
    terminal = Terminal(Console(stderr=True, highlight=False) if json else None)
    try:
        results = bench(options, terminal)
    except SandboxError as error:
        raise Unavailable(str(error)) from error
    except KeyboardInterrupt:
        terminal.plain("\nStopped; what was started is ended and removed.")
        raise typer.Exit(INTERRUPTED) from None
    show(results, terminal.console)
    if json:
        output.print_json(results.as_json())
    raise typer.Exit(0 if results.accounts.complete else 1)
