"""What commands print: tables where people read, JSON where programs do, notes on standard error."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDTH_OF_A_FILE = 160
NOTHING = "\N{EN DASH}"
"""What stands in a cell that has nothing to say."""

console = Console(
    width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE, highlight=False, soft_wrap=False
)
"""Standard output. Into a file or pipe it is wide enough that nothing breaks in the middle."""

notes = Console(stderr=True, highlight=False, soft_wrap=True)
"""Standard error: progress and remarks that are not the answer."""


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str = "none"
) -> None:
    """A table with a title; numbers to the right. Where there are no rows, the title and a word."""
    filled = [[_cell(value) for value in row] for row in rows]
    if not filled:
        console.print(Text.assemble((title, "bold"), f": {empty}\n"))
        return
    table = Table(title=title, title_style="bold", title_justify="left", box=None, pad_edge=False)
    first = next(iter(filled))
    for name, cell in zip(columns, first, strict=True):
        table.add_column(name, justify=cell.justify or "left", header_style="dim", overflow="fold")
    for row in filled:
        table.add_row(*row)
    console.print(table)
    console.print()


def _cell(value: Any) -> Text:
    """A value as text: rich markup in it is nobody's wish."""
    match value:
        case Text():
            return value
        case None:
            return Text(NOTHING)
        case bool():
            return Text("yes" if value else "no")
        case int():
            return Text(f"{value:,}", justify="right")
        case _:
            return Text(str(value))


def print_json(value: Any) -> None:
    """One JSON document, indented; data classes as objects, times as RFC 3339."""
    json.dump(value, sys.stdout, indent=2, default=_plain, ensure_ascii=False)
    sys.stdout.write("\n")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)


def duration(seconds: float | None) -> str:
    """A span of time as people say it."""
    if seconds is None:
        return NOTHING
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def number(count: int, *, estimated: bool = False) -> Text:
    """A count; with ~ where it is an estimate."""
    return Text(f"{'~' if estimated else ''}{count:,}", justify="right")


def size(count: int) -> Text:
    """Bytes as people say them."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:  # noqa: PLR2004 (the step between units)
            return Text(f"{value:.0f} {unit}", justify="right")
        value /= 1024
    return Text(f"{value:.1f} TiB", justify="right")
