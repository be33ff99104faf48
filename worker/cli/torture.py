"""`worker torture`: publish, break things at random, and account for every message."""

import random
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from worker.cli import output
from worker.errors import Misconfigured, Unavailable

INTERRUPTED = 130


def register(app: typer.Typer) -> None:
    """Add `worker torture`."""
    app.command("torture")(torture)


def torture(
    *,
    minutes: Annotated[
        float, typer.Option(min=0.05, max=10_000, help="How long to publish and break.")
    ] = 1,
    workers: Annotated[int, typer.Option(min=1, max=32, help="How many workers to run.")] = 2,
    agents: Annotated[int, typer.Option(min=1, max=200, help="How many agents publish.")] = 8,
    rate: Annotated[
        float | None,
        typer.Option(min=1, help="At most so many messages a second; else what workers can take."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Repeat the choice of faults of another run.")
    ] = None,
    fault_every: Annotated[
        float, typer.Option(min=0.2, metavar="SECONDS", help="A fault every so often.")
    ] = 5,
    faults: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="These kinds of fault only; 'help' lists them."),
    ] = None,
    recorded: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Publish these recorded agent runs as well."),
    ] = None,
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
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.md", help="Write a report of the run.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Publish under faults, kill own workers, break their connections, and check that nothing is lost or doubled.

    Without DATABASE_URL and AMQP_URL it starts services of its own. With them it works there, if they name an empty
    database and virtual host whose names begin with "torture", or are given by name here; it refuses all others, and
    removes what it made. Exits 0 only if every message that RabbitMQ confirmed is accounted for.
    """
    # Imported here, for no other command needs a sandbox.
    from worker.sandbox import SandboxError  # noqa: PLC0415
    from worker.torture.ground import Wish  # noqa: PLC0415
    from worker.torture.report import write  # noqa: PLC0415
    from worker.torture.run import Options, torture  # noqa: PLC0415
    from worker.torture.show import Screen  # noqa: PLC0415

    options = Options(
        seconds=60 * minutes,
        seed=random.SystemRandom().getrandbits(32) if seed is None else seed,
        workers=workers,
        agents=agents,
        rate=rate,
        every=fault_every,
        faults=_chosen(faults),
        recorded=recorded,
        wish=Wish(own_services, database, virtual_host),
    )
    if report is not None and not report.parent.is_dir():
        raise Misconfigured(f"--report: there is no folder {report.parent}")
    screen = Screen(Console(stderr=True, highlight=False) if json else None)
    try:
        results = torture(options, screen)
    except SandboxError as error:
        raise Unavailable(str(error)) from error
    except KeyboardInterrupt:
        screen.plain("\nStopped; what was started is ended and removed.")
        raise typer.Exit(INTERRUPTED) from None
    screen.results(results)
    if json:
        output.print_json(results.as_json())
    if report is not None:
        write(results, report)
        screen.plain(f"The report is in {report}")
    raise typer.Exit(0 if results.verdict.balanced else 1)


def _chosen(names: str | None) -> tuple[str, ...]:
    """The kinds of fault that are named, or all; 'none' for none."""
    from worker.torture.faults import FAULTS  # noqa: PLC0415 (as above)

    if names is None:
        return tuple(FAULTS)
    if names == "help":
        output.print_table(
            "Faults", ("name", "what is done"), [(f.name, f.text) for f in FAULTS.values()]
        )
        raise typer.Exit
    chosen = tuple(name.strip() for name in names.split(",") if name.strip() not in ("", "none"))
    for name in chosen:
        if name not in FAULTS:
            raise Misconfigured(f"--faults: {name!r} is none of {', '.join(FAULTS)}")
    return chosen
