"""`worker audit`: whether the audit log is what was recorded."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from worker.cli import output, session
from worker.errors import Misconfigured
from worker.operations.audit_seals import Head
from worker.operations.audit_verify import Verification
from worker.operations.audit_verify import verify as operation

group = typer.Typer(help="The audit log and its seals.", no_args_is_help=True)

_MOST_SHOWN = 100


@group.callback()
def _group() -> None:
    """Keep `verify` a command of its own: more will stand beside it."""


def register(app: typer.Typer) -> None:
    """Add `worker audit`."""
    app.add_typer(group, name="audit")


@group.command()
def verify(
    earlier: Annotated[
        Path | None,
        typer.Option(
            help="What an earlier `worker audit verify --json` printed, kept outside the database: its heads must still "
            "be in their chains, so that seals cut off at the end are found, too."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Hold the audit log against its seals and name every row that was removed, altered or added; exits 1 if there is one.

    `worker maintain` seals the hours that have passed.
    """
    heads = _read(earlier) if earlier else []
    found = session.run(operation(session.load_settings("database"), heads))
    if json:
        output.print_json(
            {
                **vars(found),
                "heads": [{**vars(head), "seal": head.seal.hex()} for head in found.heads],
            }
        )
    else:
        _print(found)
    if found.problems:
        raise typer.Exit(1)


def _print(found: Verification) -> None:
    output.print_table(
        "Not as it was",
        ("tenant", "what", "seal", "hour", "audit_id"),
        [
            (one.tenant, one.what, one.number, one.hour, one.audit_id)
            for one in found.problems[:_MOST_SHOWN]
        ],
        empty="nothing",
    )
    if len(found.problems) > _MOST_SHOWN:
        output.console.print(f"{len(found.problems):,} in all; --json shows each\n")
    output.print_table(
        "Chains",
        ("tenant", "seals", "newest seal"),
        [(head.tenant, head.number, head.seal.hex()) for head in found.heads],
    )
    retired = f", {found.retired:,} of them retired with their rows" if found.retired else ""
    output.console.print(
        f"{found.rows:,} rows under {found.seals:,} seals{retired}; {found.waiting:,} rows wait to be sealed"
    )


def _read(path: Path) -> list[Head]:
    """The heads of an earlier look. Raises Misconfigured where the file does not hold them."""
    try:
        heads = jsonlib.loads(path.read_text(encoding="utf-8"))["heads"]
        return [
            Head(one["tenant"], int(one["number"]), bytes.fromhex(one["seal"])) for one in heads
        ]
    except OSError as error:
        raise Misconfigured(f"--earlier cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Misconfigured(
            f"--earlier {path} does not hold what `worker audit verify --json` prints: {error!r}"
        ) from error
