"""Which letters: filters, lists, and reading whole letters a few at a time.

Promises that memory stays bounded however many letters match and however large they are.
"""

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import asyncpg
import orjson

from worker.dead_letters.letter import COLUMNS, JSON_COLUMNS, Letter, Summary, from_row
from worker.errors import Misconfigured
from worker.store.database import Database

Chosen = Literal["unresolved", "resolved", "all"]

_CHUNK_LETTERS = 200
_CHUNK_BYTES = 16 * 1024 * 1024
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_HEX_DIGITS = 32
_FEWEST_DIGITS = 4

_SUMMARY = """
SELECT id, first_seen_at, last_seen_at, family, type, reason, errors[0]::text AS error,
    CASE WHEN jsonb_typeof(errors) = 'array' THEN jsonb_array_length(errors) ELSE 0 END AS error_count, source, tenant_id, exchange, routing_key,
    octet_length(body) AS bytes, edited_body IS NOT NULL AS edited, seen, replays,
    coalesce(resolution, 'open') AS state
FROM dead_letters"""
_WHOLE = ", ".join(f"{name}::text" if name in JSON_COLUMNS else name for name in COLUMNS)


@dataclass(frozen=True)
class Filters:
    """Which letters; several values of one kind mean any of them, nothing means every one."""

    families: Sequence[str] = ()
    types: Sequence[str] = ()
    reasons: Sequence[str] = ()
    sources: Sequence[str] = ()
    tenants: Sequence[str] = ()
    since: datetime | None = None
    until: datetime | None = None
    ids: Sequence[str] = ()
    """Ids, or their first digits."""
    state: Chosen = "unresolved"
    limit: int | None = None


@dataclass
class _Where:
    """Conditions and their arguments."""

    conditions: list[str] = field(default_factory=list)
    arguments: list[Any] = field(default_factory=list)

    def add(self, condition: str, argument: Any) -> None:
        """A condition with one place, written `$`."""
        self.arguments.append(argument)
        self.conditions.append(condition.replace("$", f"${len(self.arguments)}"))

    def __str__(self) -> str:
        return f" WHERE {' AND '.join(self.conditions)}" if self.conditions else ""


@dataclass(frozen=True, slots=True)
class Listing:
    """Some letters, newest first, and how many there are in all."""

    total: int
    letters: list[Summary]


async def listing(database: Database, filters: Filters) -> Listing:
    """The newest letters that match."""
    async with database.transaction() as connection:
        where = await _where(connection, filters)
        total: int = await connection.fetchval(
            f"SELECT count(*) FROM dead_letters{where}",  # noqa: S608 (conditions of constant names)
            *where.arguments,
        )
        rows = await connection.fetch(
            f"{_SUMMARY}{where} ORDER BY first_seen_at DESC, id LIMIT {_limit(filters)}",
            *where.arguments,
        )
    return Listing(total, [Summary(**{**row, "error": _sentence(row["error"])}) for row in rows])


async def find(database: Database, id_text: str) -> Letter:
    """The one letter with this id, or these first digits of it. Raises Misconfigured."""
    async with database.transaction() as connection:
        (letter_id,) = await _ids(connection, [id_text])
        (letter,) = await load(connection, [letter_id])
    return letter


async def chosen(database: Database, filters: Filters) -> list[tuple[UUID, int]]:
    """Ids of the letters that match, oldest first, with the size of their bodies."""
    async with database.transaction() as connection:
        where = await _where(connection, filters)
        rows = await connection.fetch(
            "SELECT id, octet_length(body) + coalesce(octet_length(edited_body), 0) AS size "  # noqa: S608 (as above)
            f"FROM dead_letters{where} ORDER BY first_seen_at, id LIMIT {_limit(filters)}",
            *where.arguments,
        )
    return [(row["id"], row["size"]) for row in rows]


async def chunks(
    database: Database, letters: Sequence[tuple[UUID, int]]
) -> AsyncIterator[list[Letter]]:
    """These letters, whole, as many at a time as fit in memory. Those that are gone by then are left out."""
    ids: list[UUID] = []
    size = 0
    for letter_id, length in letters:
        if ids and (len(ids) >= _CHUNK_LETTERS or size + length > _CHUNK_BYTES):
            yield await _load(database, ids)
            ids, size = [], 0
        ids.append(letter_id)
        size += length
    if ids:
        yield await _load(database, ids)


def in_state(letter: Letter, state: Chosen) -> bool:
    """Whether a letter is (still) in this state."""
    return state == "all" or (letter.resolved_at is None) == (state == "unresolved")


async def load(connection: asyncpg.Connection, ids: Sequence[UUID]) -> list[Letter]:
    """Whole letters by id, in this order."""
    rows = await connection.fetch(
        f"SELECT {_WHOLE} FROM dead_letters d JOIN unnest($1::uuid[]) WITH ORDINALITY "  # noqa: S608 (constant names)
        "AS u(wanted, place) ON d.id = u.wanted ORDER BY u.place",
        list(ids),
    )
    return [from_row(row) for row in rows]


async def _load(database: Database, ids: Sequence[UUID]) -> list[Letter]:
    async with database.transaction() as connection:
        return await load(connection, ids)


def moment(text: str, now: datetime | None = None) -> datetime:
    """A time as people give it: 2026-11-21, 2026-11-21T20:10Z, or how long ago: 90s, 30m, 2h, 3d, 1w. Raises ValueError."""
    ago = re.fullmatch(r"(\d{1,6})([smhdw])", text.strip())
    if ago:
        return (now or datetime.now(UTC)) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        given = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(
            f"{text!r} is no time: write 2026-11-21, 2026-11-21T20:10:00Z, or 2h for two hours ago"
        ) from None
    return given if given.tzinfo else given.replace(tzinfo=UTC)


async def _where(connection: asyncpg.Connection, filters: Filters) -> _Where:
    where = _Where()
    for column, wanted in (
        ("family", filters.families),
        ("type", filters.types),
        ("reason", filters.reasons),
        ("source", filters.sources),
        ("tenant_id", filters.tenants),
    ):
        if wanted:
            where.add(f"{column} = ANY($::text[])", list(wanted))
    if filters.since is not None:
        where.add("first_seen_at >= $", filters.since)
    if filters.until is not None:
        where.add("first_seen_at < $", filters.until)
    if filters.ids:
        where.add("id = ANY($::uuid[])", await _ids(connection, filters.ids))
    if filters.state != "all":
        negation = "" if filters.state == "unresolved" else "NOT "
        where.conditions.append(f"resolved_at IS {negation}NULL")
    return where


async def _ids(connection: asyncpg.Connection, texts: Sequence[str]) -> list[UUID]:
    """The ids that these texts begin. Raises Misconfigured for one that begins none, or several."""
    found = []
    for text in texts:
        digits = text.strip().lower().replace("-", "")
        if not re.fullmatch(rf"[0-9a-f]{{{_FEWEST_DIGITS},{_HEX_DIGITS}}}", digits):
            raise Misconfigured(
                f"{text!r} is no id of a dead letter: give the UUID, or at least its first {_FEWEST_DIGITS} digits"
            )
        rows = await connection.fetch(
            "SELECT id FROM dead_letters WHERE id BETWEEN $1 AND $2 LIMIT 2",
            UUID(digits.ljust(_HEX_DIGITS, "0")),
            UUID(digits.ljust(_HEX_DIGITS, "f")),
        )
        if not rows:
            raise Misconfigured(
                f"there is no dead letter {text}: see 'worker dead-letters list --all'"
            )
        if len(rows) > 1:
            raise Misconfigured(f"several dead letters begin with {text}: give more digits")
        found.append(rows[0]["id"])
    return found


def _limit(filters: Filters) -> str:
    return "ALL" if filters.limit is None else str(int(filters.limit))


def _sentence(error: str | None) -> str:
    """One error as a line: its place and what is wrong."""
    if error is None:
        return ""
    detail = orjson.loads(error)
    if not isinstance(detail, dict):
        return str(detail)
    place = ".".join(str(part) for part in detail.get("loc") or ())
    return f"{place}: {detail.get('msg', '')}" if place else str(detail.get("msg", ""))
