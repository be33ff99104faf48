"""`worker reconcile`: is anything missing?"""

import contextlib
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.envelope import Source
from contracts.fields import Key, Tenant
from contracts.limits import MAX_SEQUENCE
from worker.cli import output, session
from worker.cli.output import console, notes, print_table
from worker.dead_letters.search import moment
from worker.errors import Misconfigured
from worker.operations import reconcile as operation
from worker.operations.reconcile import Finding, Reconciliation
from worker.store.reconciliation import Chosen, Epoch, Numbers

_MOST_LINES = 100_000
_MOST_RANGES = 8
_WAIT = 30.0


def register(app: typer.Typer) -> None:
    """Add `worker reconcile`."""
    app.command("reconcile")(reconcile)


def reconcile(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    source: Annotated[str | None, typer.Option(help="Only this source.")] = None,
    epoch: Annotated[UUID | None, typer.Option(help="Only this epoch of a source.")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Only epochs of which something was recorded since: 2026-11-21, or 2h for two hours ago."
        ),
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_SEQUENCE,
            help="The last number that was published in --epoch of --source: finds an end that never arrived.",
        ),
    ] = None,
    published: Annotated[
        Path | None,
        typer.Option(
            help="A file with one JSON object a line {source, epoch, sequence, tenantid?}: the last number that was "
            "published in each epoch. Looks at these epochs only; - is standard input.",
        ),
    ] = None,
    wait: Annotated[
        float,
        typer.Option(
            min=0,
            max=86_400,
            help="Seconds to look again for numbers that are not there, while they may be in a queue or in a worker's hand.",
        ),
    ] = _WAIT,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Name the events that are missing, doubled or still in dead letters, by source and epoch; exits 1 if there are any.

    It knows events with a sequence and an epoch: those of contracts.client.Publisher have both. Without --last or
    --published it cannot see that the end of what a source published is missing, only what is missing before it.
    """
    chosen = Chosen(
        tenant=tenant,
        source=source,
        epoch=epoch,
        since=_moment(since),
        upto=_upto(tenant, source, epoch, last, published),
    )
    if published is not None and not chosen.upto:
        raise Misconfigured(f"{published} tells of no epoch")
    settings = session.load_settings()
    done = session.run(
        operation.reconcile(
            settings, chosen, wait=wait, say=lambda text: notes.print(f"worker: {text}")
        )
    )
    if json:
        findings = [
            {**asdict(finding.account), "on_its_way": finding.on_its_way}
            for finding in done.findings
        ]
        output.print_json({"complete": done.complete, **vars(done), "findings": findings})
    else:
        _print(done)
    raise typer.Exit(0 if done.complete else 1)


class _Published(BaseModel):
    """One line of a file of what was published."""

    model_config = ConfigDict(strict=True)

    tenantid: Tenant = "default"
    source: Source
    epoch: Key
    sequence: int = Field(ge=0, le=MAX_SEQUENCE)


def _upto(
    tenant: str | None,
    source: str | None,
    epoch: UUID | None,
    last: int | None,
    published: Path | None,
) -> dict[Epoch, int]:
    if last is not None:
        if source is None or epoch is None or published is not None:
            raise Misconfigured("--last needs --source and --epoch, and no --published beside it")
        return {Epoch(tenant or "default", source, epoch): last}
    if published is None:
        return {}
    if tenant or source or epoch:
        raise Misconfigured(
            "--published names its epochs itself: leave --tenant, --source and --epoch out"
        )
    return _read(published)


def _read(path: Path) -> dict[Epoch, int]:
    """The largest number that the file tells for each epoch. Raises Misconfigured, naming the line."""
    found: dict[Epoch, int] = {}
    try:
        with (
            contextlib.nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb")
        ) as lines:
            for number, line in enumerate(lines, 1):
                if number > _MOST_LINES:
                    raise Misconfigured(f"{path} has more than {_MOST_LINES:,} lines: split it")
                if line.strip():
                    told = _line(path, number, line)
                    key = Epoch(told.tenantid, told.source, told.epoch)
                    found[key] = max(found.get(key, 0), told.sequence)
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from error
    return found


def _line(path: Path, number: int, line: bytes) -> _Published:
    try:
        return _Published.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the line"
        raise Misconfigured(f"{path}, line {number}: {place}: {first['msg']}") from None


def _moment(since: str | None) -> datetime | None:
    try:
        return None if since is None else moment(since)
    except ValueError as error:
        raise Misconfigured(f"--since: {error}") from error


def _print(done: Reconciliation) -> None:
    kinds = ("missing", "on_its_way", "doubled", "dead_letters", "discarded")
    print_table(
        "Loss ledger",
        ("tenant", "source", "epoch", "last number", "what", "how many", "numbers"),
        [
            (
                finding.account.tenant,
                finding.account.source,
                finding.account.epoch,
                finding.account.last,
                kind.replace("_", " "),
                numbers.count,
                _ranges(numbers),
            )
            for finding in done.findings
            for kind in kinds
            if (numbers := _of(finding, kind)).count
        ],
        empty="nothing is missing, doubled or in dead letters",
    )
    if done.findings_left_out:
        console.print(
            f"… and {done.findings_left_out:,} more epochs: choose some with --source or --since\n"
        )
    console.print(_sentence(done), markup=False)


def _of(finding: Finding, kind: str) -> Numbers:
    holder = finding if kind == "on_its_way" else finding.account
    numbers: Numbers = getattr(holder, kind)
    return numbers


def _ranges(numbers: Numbers) -> str:
    shown = ", ".join(map(str, numbers.ranges[:_MOST_RANGES]))
    more = len(numbers.ranges) - _MOST_RANGES + numbers.ranges_left_out
    return f"{shown} … and {more:,} more ranges (--json has more)" if more > 0 else shown


def _sentence(done: Reconciliation) -> str:
    """The verdict, and what may explain it."""
    text = (
        f"{done.epochs:,} epochs, {done.events:,} events: {done.missing:,} missing, {done.doubled:,} doubled, "
        f"{done.dead_letters:,} in dead letters, {done.discarded:,} discarded"
    )
    if done.on_its_way:
        queues = ", ".join(f"{name} {count:,}" for name, count in done.waiting.items())
        text += (
            f"\n{done.on_its_way:,} are not there and may be on their way ({queues or 'the queues were empty only just now'}): "
            "run it again once the queues are empty, or with a longer --wait"
        )
    if done.missing and done.letters_without_number:
        text += (
            f"\n{done.letters_without_number:,} unresolved dead letters have no number that can be read: some of what is "
            "missing may be in them ('worker dead-letters list')"
        )
    return text
