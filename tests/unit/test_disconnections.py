"""A cancellation is ours, or it is the end of a connection."""

import asyncio

import pytest

from contracts.publishing.disconnections import no_cancellation_but_ours


async def asked(answer: "asyncio.Future[None]", asking: asyncio.Event) -> None:
    with no_cancellation_but_ours():
        asking.set()
        await answer


@pytest.fixture
async def call():
    """A task that waits for an answer, and the answer."""
    answer, asking = asyncio.get_running_loop().create_future(), asyncio.Event()
    task = asyncio.ensure_future(asked(answer, asking))
    await asking.wait()
    return task, answer


async def test_a_library_that_cancels_its_answer_has_lost_the_connection(call):
    """As aiormq does when heartbeats are missed."""
    task, answer = call
    answer.cancel()
    with pytest.raises(ConnectionError, match="ended before the answer"):
        await task


async def test_a_task_that_is_cancelled_ends(call):
    """Whoever cancels it means it."""
    task, _ = call
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_time_limit_is_no_lost_connection():
    """It cancels, too."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asked(asyncio.get_running_loop().create_future(), asyncio.Event())


async def test_a_cancellation_of_long_ago_changes_nothing():
    """A task group leaves its count behind in Python 3.11."""
    task = asyncio.current_task()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.Event().wait()
    answer = asyncio.get_running_loop().create_future()
    answer.cancel()
    with pytest.raises(ConnectionError):
        await asked(answer, asyncio.Event())
    task.uncancel()
