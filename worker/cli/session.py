"""What every command but `run` begins with: settings for what it needs, plain notes, one event loop."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal, TypeVar

from worker import logs
from worker.errors import Misconfigured
from worker.settings import Settings

T = TypeVar("T")

_UNUSED = {
    "database": {"amqp_url": "amqp://not-used"},
    "broker": {"database_url": "postgresql://not-used"},
    "neither": {"amqp_url": "amqp://not-used", "database_url": "postgresql://not-used"},
}


def load_settings(need: Literal["database", "broker", "both", "neither"] = "both") -> Settings:
    """Settings from the environment; a command that needs one service only does without the address of the other.

    Raises Misconfigured naming what is wrong.
    """
    try:
        return Settings.load()
    except Misconfigured:
        return Settings.load(**_UNUSED.get(need, {}))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work to its end, with warnings of what it rests on in the worker's own form."""
    logs.configure("warning")
    return asyncio.run(work)
