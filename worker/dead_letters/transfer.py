"""Letters out to a file and in again: JSON lines, a whole row each.

Promises that a file can be read again and again: a letter that is there already stays as it is. A line that cannot be
read is named, and hides none behind it.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from pydantic import ValidationError

from worker.dead_letters import search
from worker.dead_letters.letter import COLUMNS, JSON_COLUMNS, Letter
from worker.dead_letters.search import Filters
from worker.errors import Invalid
from worker.store.database import Database

_AT_ONCE = 100
_MOST_BYTES = 16 * 1024 * 1024

_INSERT = (
    f"INSERT INTO dead_letters ({', '.join(COLUMNS)}) VALUES ("  # noqa: S608 (constant names)
    + ", ".join(
        f"${at}::text::jsonb" if name in JSON_COLUMNS else f"${at}"
        for at, name in enumerate(COLUMNS, 1)
    )
    + ") ON CONFLICT (id) DO NOTHING"
)


async def export(database: Database, filters: Filters, max_bytes: int) -> AsyncIterator[str]:
    """The letters that match, oldest first, each as a line of JSON."""
    wanted = await search.chosen(database, filters)
    async for letters in search.chunks(database, wanted):
        for letter in letters:
            yield json.dumps(letter.as_json(max_bytes), ensure_ascii=False)


@dataclass
class Imported:
    """What became of the lines of a file."""

    new: int = 0
    known: int = 0
    """Letters that were there already, and were left as they are."""
    bad: dict[int, str] = field(default_factory=dict)
    """Line numbers of what is no letter, and why."""


async def import_lines(
    database: Database, lines: Iterable[bytes], advance: Callable[[int], None] = lambda _: None
) -> Imported:
    """Add the letters of an export that are not there yet. `advance` hears of the bytes read."""
    result = Imported()
    waiting: list[tuple[int, Letter]] = []
    size = 0
    for number, line in enumerate(lines, 1):
        advance(len(line))
        if not line.strip():
            continue
        try:
            letter = Letter.model_validate_json(line.strip())
        except ValidationError as error:
            result.bad[number] = _explain(error)
            continue
        waiting.append((number, letter))
        size += len(letter.body)
        if len(waiting) >= _AT_ONCE or size >= _MOST_BYTES:
            await _insert(database, waiting, result)
            waiting, size = [], 0
    await _insert(database, waiting, result)
    return result


async def _insert(
    database: Database, letters: Sequence[tuple[int, Letter]], result: Imported
) -> None:
    """Insert these; one by one where PostgreSQL refuses something, so that only the culprit is left out."""
    try:
        async with database.transaction() as connection:
            new = [await _insert_one(connection, letter) for _, letter in letters]
    except Invalid as error:
        if len(letters) == 1:
            result.bad[letters[0][0]] = str(error)
            return
        for entry in letters:
            await _insert(database, [entry], result)
        return
    result.new += sum(new)
    result.known += len(new) - sum(new)


async def _insert_one(connection: asyncpg.Connection, letter: Letter) -> bool:
    """Whether the letter is new."""
    as_json = letter.model_dump(mode="json", include=set(JSON_COLUMNS))
    values = [_value(as_json, letter, name) for name in COLUMNS]
    return bool(await connection.execute(_INSERT, *values) == "INSERT 0 1")


def _value(as_json: Mapping[str, Any], letter: Letter, name: str) -> Any:
    if name not in JSON_COLUMNS:
        return getattr(letter, name)
    return None if as_json[name] is None else json.dumps(as_json[name])


def _explain(error: ValidationError) -> str:
    """The first few errors with their places."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        f"{'.'.join(map(str, item['loc']))}: {item['msg']}" if item["loc"] else item["msg"]
        for item in found[:3]
    )
