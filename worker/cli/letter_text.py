"""Dead letters as a person reads them. What publishers wrote can never steer the terminal."""

import re
from collections.abc import Iterable
from typing import Any

from rich.text import Text

from worker.cli.output import console, print_table
from worker.dead_letters import bodies
from worker.dead_letters.letter import Letter, Summary
from worker.dead_letters.search import Listing

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_ID_DIGITS = 13
_ERROR_LENGTH = 160


def printable(text: str) -> str:
    """The text with control characters made visible."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def print_listing(listing: Listing, what: str) -> None:
    """A table of letters, and how many there are in all."""
    print_table(
        "Dead letters",
        (
            "id",
            "first seen (UTC)",
            "family",
            "reason",
            "type",
            "first error",
            "seen",
            "replays",
            "state",
        ),
        map(_row, listing.letters),
    )
    shown = len(listing.letters)
    all_of_them = (
        "" if shown == listing.total else f" ({shown:,} shown, the newest; --limit shows more)"
    )
    console.print(f"{listing.total:,} {what}{all_of_them}")


def _row(letter: Summary) -> tuple[Any, ...]:
    error = printable(letter.error)
    if len(error) > _ERROR_LENGTH:
        error = error[: _ERROR_LENGTH - 1] + "…"
    if letter.errors > 1:
        error += f" (and {letter.errors - 1} more)"
    return (
        str(letter.id)[:_ID_DIGITS],
        letter.first_seen_at.strftime("%Y-%m-%d %H:%M:%S"),
        letter.family,
        letter.reason,
        printable(letter.type) if letter.type else None,
        error,
        letter.seen,
        letter.replays,
        letter.state + (" (edited)" if letter.edited and letter.state == "open" else ""),
    )


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
