"""A message that kills every worker that handles it ends as a dead letter; its neighbours land."""

import asyncio
import sys

from support.broker import client
from support.events import logged
from support.tables import count, rows
from support.workers import environment

# A worker in which one body ends the process at once, as a crash of a native library would.
_FRAGILE = """
import os
from worker.decode import Decoder
decode = Decoder.decode
def fragile(self, delivery):
    if b"kill the worker" in delivery.body:
        os._exit(70)
    return decode(self, delivery)
Decoder.decode = fragile
import asyncio
from worker import app, logs
from worker.settings import Settings
settings = Settings.load()
logs.configure(settings.log_level)
asyncio.run(app.run(settings, until_drained=True))
"""


async def run_until_drained(settings) -> int:
    """Start the fragile worker again and again, as a supervisor would; returns how often it died."""
    deaths = 0
    while True:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _FRAGILE, env=environment(settings)
        )
        code = await process.wait()
        if code == 0:
            return deaths
        assert code == 70
        deaths += 1
        assert deaths < 25, "the culprit is never cornered"


async def test_a_message_that_kills_workers_is_cornered_and_its_neighbours_land(settings):
    """Among eighty neighbours it is alone after a few deaths, and a letter after three more."""
    killer = logged(action="kill the worker")
    async with client(settings.broker) as agent:
        await agent.publish(*(logged() for _ in range(40)))
        await agent.publish(killer)
        await agent.publish(*(logged() for _ in range(40)))
        quick = settings.model_copy(update={"outbox_sweep_after": 0.5})
        deaths = await run_until_drained(quick)
    assert deaths >= 3
    [letter] = await rows(settings.database, "SELECT reason, body, seen FROM dead_letters")
    assert letter == {"reason": "delivery_limit", "body": killer.to_json(), "seen": 1}
    assert await count(settings.database, "execution_logs") == 80
    assert await count(settings.database, "suspects") == 0
