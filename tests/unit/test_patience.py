"""Steps that have to be finished, whatever else ends."""

import asyncio

import pytest

from worker.patience import in_any_case


async def test_a_step_is_finished_although_its_task_is_cancelled():
    """The cancellation comes afterwards."""
    begun, go, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def step():
        begun.set()
        await go.wait()
        finished.set()

    task = asyncio.ensure_future(in_any_case(step()))
    await begun.wait()
    task.cancel()
    asyncio.get_running_loop().call_soon(go.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert finished.is_set()
