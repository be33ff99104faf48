"""Dead letters as a person reads them. What publishers wrote can never steer the terminal."""

import re
from collections.abc import Iterable
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from worker.cli.output import NOTHING, console, print_table
from worker.dead_letters import bodies
from worker.dead_letters.letter import Letter, Summary
from worker.dead_letters.search import Listing

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_ID_DIGITS = 13
_ERROR_LENGTH = 160
_WIDE = 140


def printable(text: str) -> str:
    """The text with control characters made visible."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def print_listing(listing: Listing, what: str) -> None:
    """A table of letters, and how many there are in all."""
    if listing.letters:
        console.print(_table(listing.letters, wide=console.width >= _WIDE))
        console.print()
    shown = len(listing.letters)
    all_of_them = (
        "" if shown == listing.total else f" ({shown:,} shown, the newest; --limit shows more)"
    )
    console.print(f"{listing.total:,} {what}{all_of_them}")


def _table(letters: Iterable[Summary], *, wide: bool) -> Table:
    """One line a letter where there is room, else two."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    middle = ("family", "reason", "type", "first error") if wide else ("family, reason", "error")
    for name in (
        "id",
        "first seen (UTC)" if wide else "first seen",
        *middle,
        "seen",
        "replays",
        "state",
    ):
        error = name in ("error", "first error")
        justify: Literal["left", "right"] = "right" if name in ("seen", "replays") else "left"
        table.add_column(name, justify=justify, no_wrap=not error, overflow="fold")
    for letter in letters:
        event_type = printable(letter.type) if letter.type else NOTHING
        error_text = _first_error(letter)
        when = letter.first_seen_at.strftime("%Y-%m-%d %H:%M:%S" if wide else "%m-%d %H:%M")
        cells = [letter.family, letter.reason, event_type, error_text]
        if not wide:
            cells = [f"{letter.family}\n{letter.reason}", f"{event_type}\n{error_text}"]
        counts = (
            f"{letter.seen:,}",
            f"{letter.replays:,}",
            "open, edited" if _is_edited(letter) else letter.state,
        )
        table.add_row(*map(Text, (str(letter.id)[:_ID_DIGITS], when, *cells, *counts)))
    return table


def _is_edited(letter: Summary) -> bool:
    """Whether a replay would publish an edited body."""
    return letter.edited and letter.state == "open"


def _first_error(letter: Summary) -> str:
    error = printable(letter.error)
    if len(error) > _ERROR_LENGTH:
        error = error[: _ERROR_LENGTH - 1] + "…"
    return f"{error} (and {letter.error_count - 1} more)" if letter.error_count > 1 else error


def print_letter(letter: Letter, max_bytes: int) -> None:
    """Everything about one letter."""
    for name, value in _facts(letter):
        console.print(Text.assemble((f"{name:<16}", "dim"), printable(str(value))))
    console.print()
    print_table("Errors", ("place", "error", "kind"), map(_error, letter.errors))
    for title, values in (("Headers", letter.headers), ("Properties", letter.properties)):
        if values:
            rows = [(printable(name), printable(str(value))) for name, value in values.items()]
            print_table(title, ("name", "value"), rows)
    text = letter.text(max_bytes)
    decoded = f", {len(text):,} decoded" if text != letter.body else ""
    _print_body(f"Body ({len(letter.body):,} bytes{decoded})", text)
    if letter.edited_body is not None:
        _print_body(f"Edited body ({len(letter.edited_body):,} bytes)", letter.edited_body)


def _facts(letter: Letter) -> Iterable[tuple[str, Any]]:
    resolved = letter.resolved_at
    yield "id", letter.id
    yield "state", letter.state + (f" {resolved.isoformat(timespec='seconds')}" if resolved else "")
    yield "reason", letter.reason
    yield "family", letter.family
    yield "type", letter.type or "unknown"
    yield "source", letter.source or "unknown"
    yield "tenant", letter.tenant_id or "unknown"
    yield "published to", f"exchange {letter.exchange!r}, routing key {letter.routing_key!r}"
    if letter.message_id is not None:
        yield "AMQP message id", letter.message_id
    if letter.batch_index is not None:
        yield "in a batch", f"event {letter.batch_index}, counted from 0"
    yield "first seen", letter.first_seen_at.isoformat(timespec="seconds")
    yield "seen", f"{letter.seen} times, last {letter.last_seen_at.isoformat(timespec='seconds')}"
    replayed = letter.last_replayed_at
    last = f", last {replayed.isoformat(timespec='seconds')}" if replayed else ""
    yield "replayed", f"{letter.replays} times{last}"


def _error(detail: dict[str, Any]) -> tuple[Any, ...]:
    place = ".".join(str(part) for part in detail.get("loc") or ())
    return (
        printable(place) or None,
        printable(str(detail.get("msg", ""))),
        printable(str(detail.get("type", ""))),
    )


def _print_body(title: str, body: bytes) -> None:
    console.print(Text(title, "bold"))
    console.print(Text(printable(bodies.readable(body))), soft_wrap=True)
