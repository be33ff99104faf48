"""Steps that have to be finished, whatever else ends."""

import asyncio
import time

import pytest

from worker.patience import in_any_case, rest


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


@pytest.mark.parametrize("pause", [0.05, 3.0])
def test_a_pause_is_counted_from_the_beginning_of_the_last_attempt(pause):
    """An attempt that waited longer than the pause is followed by the next one almost at once; never without any."""
    assert rest(pause, time.monotonic()) <= max(pause, 0.1)
    assert 0 < rest(pause, time.monotonic() - 10) <= 0.1
    if pause == 3.0:
        assert rest(pause, time.monotonic()) > 1
