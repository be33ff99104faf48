"""`worker report`: the questions that are asked after something went wrong."""

import csv
import json as json_text
import sys
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

import typer

from worker.cli import output, session
from worker.cli.letter_text import printable
from worker.errors import Misconfigured
from worker.operations.services import open_database, require_migrations
from worker.reports.post_mortem import REPORTS
from worker.reports.report import Answer, Report, run
from worker.settings import Settings

_LONGEST_CELL = 120
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Format(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def register(app: typer.Typer) -> None:
    """Add `worker report`."""
    app.command("report")(report)


def report(
    name: Annotated[str | None, typer.Argument(help="Which report; --list names them.")] = None,
    *,
    listed: Annotated[bool, typer.Option("--list", help="Name the reports.")] = False,
    days: Annotated[int | None, typer.Option(help="So many days back.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many rows.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    task: Annotated[str | None, typer.Option(help="The task, for task-timeline.")] = None,
    form: Annotated[
        Format,
        typer.Option(
            "--format", help="A table for people, JSON or CSV for programs and spreadsheets."
        ),
    ] = Format.TABLE,
) -> None:
    """Answer a question from the tables; reads only. A report without rows is an answer, and exits 0."""
    if listed:
        _print_list(form)
        return
    chosen = _chosen(name)
    given = {"days": days, "limit": limit, "tenant": tenant, "task": task}
    chosen.parameters(given)
    answer = session.run(_ask(session.load_settings("database"), chosen, given))
    match form:
        case Format.JSON:
            output.print_json(_as_json(answer))
        case Format.CSV:
            _write_csv(answer)
        case Format.TABLE:
            _print(answer)


def _chosen(name: str | None) -> Report:
    if name is None or name not in REPORTS:
        told = "say which report" if name is None else f"{name!r} is no report"
        raise Misconfigured(f"{told}; there are: {', '.join(REPORTS)}")
    return REPORTS[name]


async def _ask(settings: Settings, chosen: Report, given: dict[str, Any]) -> Answer:
    async with open_database(settings, wait=settings.start_timeout) as database:
        await require_migrations(database, settings)
        return await run(database, chosen, given)


def _print_list(form: Format) -> None:
    rows = [(one.name, one.title, _takes(one)) for one in REPORTS.values()]
    if form is Format.JSON:
        output.print_json(
            [
                {
                    "name": one.name,
                    "title": one.title,
                    "parameters": {**one.defaults, "tenant": None},
                }
                for one in REPORTS.values()
            ]
        )
    elif form is Format.CSV:
        csv.writer(sys.stdout, lineterminator="\n").writerows([("name", "title", "takes"), *rows])
    else:
        output.print_table("Reports", ("name", "what it tells", "takes"), rows)


def _takes(one: Report) -> str:
    """The options of a report, with their defaults."""
    return " ".join(
        f"--{name}" if value is None else f"--{name} {value}"
        for name, value in one.defaults.items()
    )


def _as_json(answer: Answer) -> dict[str, Any]:
    return {
        "report": answer.report.name,
        "parameters": answer.parameters,
        "rows": [
            {name: _json_value(value) for name, value in zip(answer.columns, row, strict=True)}
            for row in answer.rows
        ],
    }


def _json_value(value: Any) -> Any:
    """Numbers stay numbers: a Decimal with all its digits would be text."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value


def _write_csv(answer: Answer) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(answer.columns)
    writer.writerows([_csv_value(value) for value in row] for row in answer.rows)


def _csv_value(value: Any) -> Any:
    """A value for a spreadsheet; an apostrophe keeps text that agents wrote from being run as a formula."""
    text = _text(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case datetime():
            return value.isoformat()
        case dict() | list():
            return json_text.dumps(value, ensure_ascii=False)
        case _:
            return str(value)


def _print(answer: Answer) -> None:
    rows = [[_cell(value) for value in row] for row in answer.rows]
    output.print_table(
        answer.report.title, [name.replace("_", " ") for name in answer.columns], rows
    )
    if len(rows) == answer.parameters.get("limit"):
        output.notes.print(f"worker: the first {len(rows):,} rows; --limit shows more")


def _cell(value: Any) -> Any:
    """A value for a terminal: what agents wrote can never steer it."""
    match value:
        case datetime():
            return value.strftime("%Y-%m-%d %H:%M:%S")
        case Decimal():
            return int(value) if value == value.to_integral_value() else f"{value.normalize():f}"
        case None | bool() | int() | date():
            return value
        case _:
            text = " ".join(printable(_text(value)).split())
            return text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…"
