"""How letters end: discarded by somebody here, or resolved by the worker, which is waited for here."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from worker.store.database import Database

_AT_ONCE = 1000
_POLL_SECONDS = 0.1


async def discard(database: Database, wanted: Sequence[UUID]) -> int:
    """Resolve those of these letters that are open as discarded; returns how many. Their rows stay, and can be replayed."""
    discarded = 0
    for at in range(0, len(wanted), _AT_ONCE):
        async with database.transaction() as connection:
            status: str = await connection.execute(
                "UPDATE dead_letters d SET resolved_at = now(), resolution = 'discarded' "
                "FROM (SELECT id FROM dead_letters WHERE id = ANY($1::uuid[]) AND resolved_at IS NULL "
                "ORDER BY id FOR UPDATE) locked WHERE d.id = locked.id",
                list(wanted[at : at + _AT_ONCE]),
            )
        discarded += int(status.rpartition(" ")[2])
    return discarded


@dataclass
class Waited:
    """What became of replayed letters."""

    resolved: Counter[str] = field(default_factory=Counter)
    """How many were resolved, by resolution."""
    rejected: dict[UUID, str] = field(default_factory=dict)
    """Those that were rejected again, with the reason."""
    unanswered: list[UUID] = field(default_factory=list)
    """Those of which nothing was heard."""


async def wait(
    database: Database,
    replayed: Mapping[UUID, int],
    *,
    patience: float,
    advance: Callable[[int], None] = lambda _: None,
) -> Waited:
    """Wait until each letter (with how often it had been seen before) is resolved or rejected again.

    Gives up when nothing has changed for `patience` seconds.
    """
    waited = Waited()
    pending = dict(replayed)
    loop = asyncio.get_running_loop()
    last_change = loop.time()
    while pending and loop.time() - last_change < patience:
        first = [(letter_id, pending.pop(letter_id)) for letter_id in list(pending)[:_AT_ONCE]]
        found = await _look(database, dict(first), waited)
        pending.update(entry for entry in first if entry[0] not in found)  # behind all others
        if found:
            advance(len(found))
            last_change = loop.time()
        else:
            await asyncio.sleep(_POLL_SECONDS)
    waited.unanswered = list(pending)
    return waited


async def _look(database: Database, pending: Mapping[UUID, int], waited: Waited) -> set[UUID]:
    """Those of these letters that have an end; noted in `waited`."""
    async with database.transaction() as connection:
        rows = await connection.fetch(
            "SELECT id, resolution, seen, reason FROM dead_letters WHERE id = ANY($1::uuid[])",
            list(pending),
        )
    found = set()
    for row in rows:
        if row["resolution"] is not None:
            waited.resolved[row["resolution"]] += 1
        elif row["seen"] > pending[row["id"]]:
            waited.rejected[row["id"]] = row["reason"]
        else:
            continue
        found.add(row["id"])
    return found
