"""Draining: stop once there is nothing left to do (`worker run --drain`)."""

import asyncio
import contextlib

import structlog

from worker.attachment import Attachment
from worker.broker import topology
from worker.broker.connection import connect
from worker.errors import Unavailable
from worker.relay import Relay
from worker.settings import Settings
from worker.store import outbox
from worker.store.database import Database

log = structlog.get_logger()
_EVERY = 0.3


async def stop_when_drained(
    settings: Settings,
    attachment: Attachment,
    relay: Relay,
    database: Database,
    stop: asyncio.Event,
) -> None:
    """Set `stop` once the queues, what is in hand and the outbox are empty."""
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_EVERY):
                await stop.wait()
        try:
            if await _is_drained(settings, attachment, relay, database):
                log.info("drained")
                stop.set()
        except Unavailable as error:
            log.warning("cannot see whether the queues are empty", error=str(error))


async def _is_drained(
    settings: Settings, attachment: Attachment, relay: Relay, database: Database
) -> bool:
    if attachment.absent or attachment.in_hand:
        return False
    connection = await connect(settings.broker, name=f"{settings.name} drain")
    try:
        for queue in attachment.queues():
            if await topology.message_count(connection, queue):
                return False
    finally:
        await connection.close()
    await relay.idle()
    async with database.transaction() as driver:
        waiting = await outbox.count(driver)
    return not (waiting or attachment.in_hand or attachment.absent)
