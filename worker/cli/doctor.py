"""`worker doctor`: what is wrong, and how to mend it."""

from typing import Annotated

import typer
from rich.text import Text

from worker.cli import MISCONFIGURED, output, session
from worker.operations.doctor import examine, must_be_mended
from worker.operations.findings import Finding, Level

_STYLES = {Level.OK: "green", Level.NOTE: "yellow", Level.MEND: "bold red"}


def register(app: typer.Typer) -> None:
    """Add `worker doctor`."""
    app.command("doctor")(doctor)


def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say what is wrong and how to mend it; changes nothing. Exits 2 where something must be mended, else 0."""
    findings = session.run(examine())
    if json:
        output.print_json(findings)
    else:
        for finding in findings:
            output.console.print(_line(finding), soft_wrap=True)
        output.console.print(_summary(findings))
    if must_be_mended(findings):
        raise typer.Exit(MISCONFIGURED)


def _line(finding: Finding) -> Text:
    line = Text.assemble(
        (f"{finding.level:<5}", _STYLES[finding.level]),
        (f"{finding.check}: ", "bold"),
        finding.what,
    )
    if finding.remedy:
        line.append(f"\n     → {finding.remedy}", "dim")
    return line


def _summary(findings: list[Finding]) -> Text:
    count = {level: sum(one.level is level for one in findings) for level in Level}
    if count[Level.MEND]:
        return Text(f"\n{count[Level.MEND]} to mend, {count[Level.NOTE]} to know.", "bold red")
    return Text(f"\nNothing to mend, {count[Level.NOTE]} to know.", "bold green")
