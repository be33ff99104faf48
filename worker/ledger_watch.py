"""Keeps the gauges of the loss ledger: how many numbered events are missing, how many are doubled.

A number counts as missing when it was not there at two looks, minutes apart: what is on its way is there by the second,
unless it waits in a queue for that long. Each process looks for itself, seldom, in two statements.
"""

import asyncio
import random
from collections.abc import Mapping

import structlog

from worker import telemetry
from worker.errors import Unavailable
from worker.store.database import Database
from worker.store.reconciliation import Chosen, Epoch, look

log = structlog.get_logger()

EVERY = 300.0
"""Seconds between two looks."""

_MOST_EPOCHS = 10_000


async def watch(database: Database, every: float = EVERY) -> None:
    """Look again and again, until cancelled."""
    late: dict[Epoch, int] = {}
    while True:
        try:
            late = await look_once(database, late)
        except Unavailable as error:
            log.warning("ledger watch waits", error=str(error))
        await asyncio.sleep(every * random.uniform(0.8, 1.2))  # noqa: S311 (jitter)


async def look_once(database: Database, late: Mapping[Epoch, int]) -> dict[Epoch, int]:
    """Set the gauges; `late` is what the look before gave: epochs with a gap, and how far each had come."""
    missing = 0
    if late:
        again = Chosen(upto=dict(late), no_further=True)
        async for account in look(database, again, most_ranges=0, letters=False):
            missing += account.missing.count
    doubled = 0
    found: dict[Epoch, int] = {}
    async for account in look(database, Chosen(), most_ranges=0, letters=False):
        doubled += account.doubled.count
        if account.missing.count and len(found) < _MOST_EPOCHS:
            found[account.key] = account.last
    telemetry.ledger_missing.set(missing)
    telemetry.ledger_doubled.set(doubled)
    return found
