"""What a client library for AMQP makes of a connection that ends under a call.

Promises that a task ends by cancellation only where somebody cancelled that task. aiormq cancels those who wait for an
answer when its connection dies of missed heartbeats; a task that took this for its own end would end unnoticed, and
with it whatever it was there for.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_cancellation_but_ours() -> Iterator[None]:
    """Around calls of the library. Raises ConnectionError where they are cancelled, but not the task that made them."""
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    except asyncio.CancelledError as error:
        if task is None or task.cancelling() > before:
            raise
        raise ConnectionError("the connection ended before the answer came") from error
