"""The command line: commands parse and print, the work is done on the floors below.

One module a command or group of commands: each has `register(app)` and is found by its being here. Promises the exit
codes of the wire (0 done; 1 some message was rejected, not confirmed or missing; 2 bad usage or configuration; 3 a service could
not be reached), one sentence on standard error instead of a traceback for all that a person can mend, and no secret.
"""

import gc
import importlib
import pkgutil
import sys
from typing import Annotated, NoReturn

import typer

from worker.cli.version import version as current_version
from worker.errors import Misconfigured, Unavailable, WorkerError

MISCONFIGURED = 2
UNAVAILABLE = 3

_ORDER = (
    "run",
    "demo",
    "torture",
    "bench",
    "publish",
    "status",
    "doctor",
    "dead_letters",
    "migrate",
    "topology",
    "maintain",
    "archive",
    "reconcile",
    "checkpoints",
    "report",
    "seed",
    "audit",
    "contracts",
)
"""The order in which `worker --help` tells of them; what is not named here comes after, by name."""

app = typer.Typer(
    name="worker",
    help="Persistence worker for agent systems: RabbitMQ in, PostgreSQL behind, confirmations out.",
    epilog=(
        "DATABASE_URL and AMQP_URL say where to work; 'worker run --help' lists all settings. "
        "Exit codes: 0 done · 1 some message was rejected, not confirmed or missing · 2 bad usage or configuration · "
        "3 a service could not be reached."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"agent-persistence {current_version()}")  # noqa: T201 (this is the answer)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """What stands before a command."""
    del version


_registered: set[str] = set()


def register_commands(wanted: str | None = None) -> None:
    """Let every module of this package add its commands; or only the one that is wanted, if there is such a module.

    A worker that starts need not wait for what other commands import.
    """
    names = [info.name for info in pkgutil.iter_modules(__path__)]
    place = {name: number for number, name in enumerate(_ORDER)}
    if wanted in names:
        names = [wanted]
    for name in sorted(names, key=lambda name: (place.get(name, len(place)), name)):
        register = getattr(importlib.import_module(f"{__name__}.{name}"), "register", None)
        if register is not None and name not in _registered:
            _registered.add(name)
            register(app)


def main() -> None:
    """Run the command line and exit."""
    first = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
    gc.disable()  # what loading makes is kept: looking for cycles in it took a quarter of the time of every start
    if sys.argv[1:] != ["--version"]:
        register_commands(first.replace("-", "_"))
    gc.freeze()
    gc.enable()
    try:
        app(prog_name="worker")
    except Misconfigured as error:
        _fail(error, MISCONFIGURED)
    except Unavailable as error:
        _fail(error, UNAVAILABLE)
    except WorkerError as error:
        _fail(error, 1)


def _fail(error: WorkerError, code: int) -> NoReturn:
    """Say what is wrong, in one sentence, and exit."""
    print(f"worker: {error}", file=sys.stderr)  # noqa: T201 (this is for a person)
    raise SystemExit(code) from error
