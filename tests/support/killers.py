"""Messages that kill every worker that handles them, workers that they can kill, and the account at the end."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from contracts import Event
from support.broker import Client
from support.commands import Command, running_command
from support.events import logged
from support.tables import count, rows
from support.waiting import until
from support.workers import environment
from worker.settings import Settings

MEANS = ("exit", "SIGKILL", "SIGSEGV", "abort", "memory", "hang")
"""How a message can kill: the keys of MEANS in fragile/sitecustomize.py."""

_ROOT = Path(__file__).parents[2]
_FRAGILE = Path(__file__).parent / "fragile"


def killer(means: str) -> Event:
    """A message that kills each worker that decodes it, by this means."""
    return logged(action=f"kill the worker by {means}")


@asynccontextmanager
async def fragile_workers(
    settings: Settings, processes: int, **extra: str
) -> AsyncIterator[Command]:
    """A supervisor whose processes can be killed by messages, with a watchdog that kills those that hang."""
    own = {
        name: value
        for name, value in environment(settings).items()
        if name.startswith("WORKER_") or name in ("DATABASE_URL", "AMQP_URL")
    }
    own |= {
        # The checkout, too: sitecustomize imports the worker before Python looks where it was started.
        "PYTHONPATH": os.pathsep.join((str(_FRAGILE), str(_ROOT))),
        "WORKER_RESTART_LONGEST": "0.3",
        "WORKER_LOG_LEVEL": "info",
    }
    async with running_command("run", "--processes", str(processes), **own, **extra) as run:
        watchdog = asyncio.create_task(_kill_what_hangs(run.process.pid))
        try:
            yield run
        finally:
            watchdog.cancel()


async def publish_among(agent: Client, killers: Sequence[Event], neighbours: int) -> list[Event]:
    """Publish killers evenly spread among neighbours; returns the neighbours."""
    innocent = [logged() for _ in range(neighbours)]
    gap = neighbours // (len(killers) + 1)
    events: list[Event] = []
    for at, event in enumerate(innocent):
        number, rest = divmod(at, gap)
        if not rest and 0 < number <= len(killers):
            events.append(killers[number - 1])
        events.append(event)
    for start in range(0, len(events), 100):
        await asyncio.gather(*(agent.publish(event) for event in events[start : start + 100]))
    return innocent


async def settled(settings: Settings, neighbours: int, killers: int, seconds: float) -> None:
    """Wait until every neighbour is stored and every killer is a letter."""

    async def all_there() -> bool:
        stored = await count(settings.database, "execution_logs")
        return stored >= neighbours and await count(settings.database, "dead_letters") >= killers

    await until(all_there, seconds)


async def check_account(
    settings: Settings, neighbours: Sequence[Event], killers: Sequence[Event]
) -> None:
    """Each killer is one letter with its whole body after three attempts, each neighbour one row and no letter."""
    stored = await rows(settings.database, "SELECT event_id FROM execution_logs")
    assert sorted(row["event_id"] for row in stored) == sorted(event.id for event in neighbours)
    letters = await rows(settings.database, "SELECT reason, body, errors, seen FROM dead_letters")
    assert sorted(letter["body"] for letter in letters) == sorted(k.to_json() for k in killers)
    for letter in letters:
        assert letter["reason"] == "delivery_limit"
        assert "ended the worker 3 times while it was handled alone" in str(letter["errors"])
        assert letter["seen"] == 1
    assert await count(settings.database, "suspects WHERE ended_at IS NULL") == 0


def deaths(run: Command) -> int:
    """How many processes have died under a supervisor, by its own words."""
    return len(re.findall('"event": "process died"', run.err))


async def _kill_what_hangs(supervisor: int) -> None:
    """SIGKILL for each process of the supervisor that is stopped, as a liveness check would end it."""

    def kill() -> None:
        with suppress(FileNotFoundError, ProcessLookupError):
            for pid in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split():
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                if state == "T":
                    os.kill(int(pid), signal.SIGKILL)

    await until(kill, seconds=3600)
