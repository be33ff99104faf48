"""`worker demo`: see it work, with nothing but Python and this package."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from worker.cli.output import notes
from worker.errors import Misconfigured, Unavailable

QUICK_SECONDS = 2
INTERRUPTED = 130


def register(app: typer.Typer) -> None:
    """Add `worker demo`."""
    app.command("demo")(demo)


def demo(
    seconds: Annotated[
        float, typer.Option(min=0.5, max=3600, help="How long simulated agents publish.")
    ] = 5,
    agents: Annotated[int, typer.Option(min=1, max=100, help="How many agents publish.")] = 5,
    workers: Annotated[int, typer.Option(min=1, max=32, help="How many workers are started.")] = 2,
    quick: Annotated[
        bool, typer.Option("--quick", help=f"Publish for {QUICK_SECONDS} seconds only.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running until Ctrl-C, to look around.")
    ] = False,
    recorded: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Publish these recorded agent runs instead."),
    ] = None,
    jsonl: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --from: only write their events, one a line, for 'worker publish'; - is standard output.",
        ),
    ] = None,
    tenant: Annotated[
        str, typer.Option(help="With --jsonl: the tenant of the events.")
    ] = "default",
) -> None:
    """Start a throw-away broker and database, two workers and some agents; kill a worker; check that nothing is lost.

    DATABASE_URL and AMQP_URL are not used. Exits 0 only if every message is accounted for.
    """
    if jsonl is not None:
        _write(recorded, jsonl, tenant)
        return
    # Imported here, for no other command needs a sandbox.
    from worker.demo.run import Options, demonstrate  # noqa: PLC0415
    from worker.demo.show import Screen  # noqa: PLC0415
    from worker.sandbox import SandboxError  # noqa: PLC0415

    options = Options(QUICK_SECONDS if quick else seconds, agents, workers, keep, recorded)
    screen = Screen()
    try:
        balanced = demonstrate(options, screen)
    except SandboxError as error:
        raise Unavailable(str(error)) from error
    except KeyboardInterrupt:
        screen.plain("\nStopped; what was started is ended and removed.")
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(0 if balanced else 1)


def _write(recorded: Path | None, jsonl: Path, tenant: str) -> None:
    """Write the events of recorded runs as JSON lines."""
    from worker.demo.recorded import events, read  # noqa: PLC0415 (as above)

    if recorded is None:
        raise typer.BadParameter("--jsonl needs --from FILE, the recorded runs")
    found = list(events(read(recorded), tenant=tenant))
    with _writing(jsonl) as out:
        for event in found:
            out.write(event.to_json() + b"\n")
    notes.print(
        f"{len(found):,} events are written to {'standard output' if _is_stdout(jsonl) else jsonl}"
    )


@contextmanager
def _writing(file: Path) -> Iterator[BinaryIO]:
    """The file, or standard output where it is called -."""
    if _is_stdout(file):
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with file.open("wb") as out:
            yield out
    except OSError as error:
        raise Misconfigured(f"{file} cannot be written: {error.strerror}") from None


def _is_stdout(file: Path) -> bool:
    return str(file) == "-"
