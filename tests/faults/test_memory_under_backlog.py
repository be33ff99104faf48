"""Memory of a worker is bounded by settings, however much waits in its queue and however large it is."""

import signal

import pytest
from support import queues
from support.backlog import MIB, peak_memory, publish_large, require_disk
from support.broker import client
from support.figures import report
from support.tables import count, rows
from support.waiting import until
from support.workers import worker_process

from worker.settings import Settings

QUEUE = "worker.execution-log"


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("waiting", "output", "enough"),
    [
        (40_000, {"text": "x" * (64 * 1024)}, 10_000),
        (50_000, {"text": "x" * (256 * 1024)}, 5_000),
        (10_000, {"text": "x" * (MIB - 4096)}, 1_500),
        (1_000, {"text": "x" * (8 * MIB - 4096)}, 200),
        (100, [f"{number:014}" for number in range(480_000)], 60),
    ],
    ids=[
        "40,000 of 64 KB",
        "50,000 of 256 KB",
        "10,000 of 1 MB",
        "1,000 of 8 MB",
        "100 of 8 MB in 480,000 values",
    ],
)
async def test_memory_stays_under_300_mb_whatever_waits(
    waiting, output, enough, database_url, amqp_url
):
    """With the default settings; what is stored meanwhile is stored once, and nothing becomes a letter."""
    require_disk(waiting * len(str(output)))
    settings = Settings.load(
        database_url=database_url, amqp_url=amqp_url, name="bounded", http_port=0
    ).model_copy(update={"log_level": "warning"})
    try:
        async with client(amqp_url) as agent:
            size = await publish_large(agent, waiting, output)
        async with worker_process(settings) as worker:

            async def enough_stored() -> bool:
                return await count(database_url, "execution_logs") >= enough

            await until(enough_stored, seconds=1800)
            peak = peak_memory(worker.pid)
            worker.signal(signal.SIGTERM)
            assert await worker.ended() == 0
        stored = await count(database_url, "execution_logs")
        left = await queues.length(amqp_url, QUEUE)
    finally:
        await queues.delete(amqp_url, QUEUE)
    report(f"{waiting} messages of {size} bytes waiting: peak {peak / 1e6:.0f} MB, {stored} stored")
    [distinct] = await rows(
        database_url, "SELECT count(DISTINCT event_id) AS n FROM execution_logs"
    )
    assert distinct["n"] == stored
    assert stored + left == waiting
    assert await count(database_url, "dead_letters") == 0
    assert peak < 300e6
