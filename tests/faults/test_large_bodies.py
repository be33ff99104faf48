"""Bodies that are legal and as much work as can be: heartbeats go on, memory stays small, neighbours land."""

import asyncio
import gzip
import json
import threading
import time
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from support.broker import client
from support.events import logged
from support.ledger import Ledger
from support.tables import rows
from support.verdicts import everything_is_accounted_for
from support.waiting import until
from support.workers import running_worker, worker_process

from contracts.limits import MAX_BATCH_EVENTS, MAX_BODY_BYTES, MAX_JSON_VALUES
from contracts.trajectory import TrajectoryRecorded
from worker.decode import Decoder
from worker.store.persist import Persister

HEARTBEAT = 10
MEBIBYTE = 1024 * 1024


@asynccontextmanager
async def beats():
    """When the event loop got its turn, in seconds that this process worked: a busy machine does not count."""
    loop = asyncio.get_running_loop()
    times = [time.process_time()]

    async def beat() -> None:
        nothing = loop.create_future()
        while True:
            await asyncio.wait([nothing], timeout=0.05)
            times.append(time.process_time())

    beating = asyncio.create_task(beat())
    yield times
    beating.cancel()
    times.append(time.process_time())


def longest(times: list[float]) -> float:
    return max(later - earlier for earlier, later in pairwise(times))


def invalid_events() -> bytes:
    """10,000 events with as many mistakes as the limits of a body leave room for."""
    members = {f"a{number}": 1 for number in range(MAX_JSON_VALUES // MAX_BATCH_EVENTS - 20)}
    event = json.loads(logged().to_json())
    event["data"].update(members)
    return json.dumps([event] * MAX_BATCH_EVENTS, separators=(",", ":")).encode()


def large_trajectory(size: int = MAX_BODY_BYTES) -> "tuple[object, bytes]":
    """A trajectory whose body is as large as a body may be."""
    from uuid import uuid4

    from contracts.identifiers import uuid7

    def event(length: int):
        step = {"state": {"text": "x" * length}, "action": {}, "result": {}}
        data = TrajectoryRecorded(
            job_id=uuid4(), agent_id="a", query="q", reward=1.0, trajectory_id=uuid7(), steps=[step]
        )
        return data.event(source="/agents/large")

    room = size - len(event(0).to_json())
    found = event(room - 8)
    return found, found.to_json()


WORST = {
    "10,000 events full of mistakes": invalid_events,
    "many values, exact numbers": lambda: logged(
        output_full=[1234567890123456789] * 400_000
    ).to_json(),
    "[], for 8 MiB": lambda: b"[" + b"[]," * ((MAX_BODY_BYTES - 4) // 3) + b"[]]",
    "an open string for 8 MiB": lambda: b'["' + b',"' * (MAX_BODY_BYTES // 2 - 2),
}


@pytest.mark.torture
@pytest.mark.parametrize("what", WORST)
async def test_the_most_work_that_a_body_can_be_starves_no_heartbeat(what, settings):
    """The event loop is never away for a quarter of a heartbeat, and what came in between is stored."""
    body = WORST[what]()
    assert len(body) <= MAX_BODY_BYTES
    async with client(settings.broker) as agent, running_worker(settings):
        await agent.publish_raw(body, "execution.logged")
        async with beats() as times:
            small = [logged() for _ in range(20)]
            await agent.publish(*small)
            await until(lambda: _stored(settings, small), 100)
            await until(lambda: _settled(settings), 100)
    assert longest(times) < HEARTBEAT / 4, f"away for {longest(times):.2f} s"


async def _stored(settings, events) -> bool:
    found = await rows(settings.database, "SELECT event_id FROM execution_logs")
    return {event.id for event in events} <= {row["event_id"] for row in found}


async def _settled(settings) -> bool:
    [row] = await rows(
        settings.database,
        "SELECT (SELECT count(*) FROM execution_logs) AS stored, (SELECT count(*) FROM dead_letters) AS letters",
    )
    return row["stored"] > 20 or row["letters"] > 0


def resident(pid: int) -> int:
    """The most memory that a process has had so far, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no such process")


@pytest.fixture
def transactions(monkeypatch):
    """What each transaction held: events, and bytes of their bodies once unpacked."""
    seen = []
    persist = Persister.persist

    async def watch(self, decoded):
        deliveries = {id(item.delivery): item.delivery for item in decoded}
        seen.append((len(decoded), sum(one.unpacked for one in deliveries.values())))
        return await persist(self, decoded)

    monkeypatch.setattr(Persister, "persist", watch)
    return seen


async def test_small_bodies_that_unpack_to_much_share_no_transaction(settings, transactions):
    """Sixty bodies of a kilobyte, 128 KiB each once unpacked: no more at once than a transaction may hold."""
    ledger = Ledger()
    limit, size = MEBIBYTE, MEBIBYTE // 8
    small = settings.model_copy(update={"batch_bytes": limit})
    async with client(settings.broker) as agent:
        for event in [logged(output_full="x" * size) for _ in range(60)]:
            body = gzip.compress(event.to_json(), 1)
            await agent.publish_raw(body, "execution.logged", content_encoding="gzip")
            ledger.published.append(event)
        async with running_worker(small):
            await ledger.hear(agent)
    assert max(unpacked for _, unpacked in transactions) <= limit + 2 * size
    await everything_is_accounted_for(ledger, settings)


async def test_batches_of_very_many_events_share_no_transaction(settings, transactions):
    """Ten bodies of 200 events, each without a byte to spare: no further one once they hold 500."""
    body = b"[" + b",".join([b"{}"] * 200) + b"]"
    async with client(settings.broker) as agent:
        for number in range(10):
            await agent.publish_raw(body, "execution.logged", message_id=f"batch {number}")
        good = logged()
        await agent.publish(good)
        async with running_worker(settings.model_copy(update={"batch_messages": 500})):
            found = await agent.confirmed(2001)
    assert max(held for held, _ in transactions) <= 600
    assert [item["id"] for item in found["persisted"]] == [str(good.id)]
    assert len(found["rejected"]) == 2000


@pytest.mark.parametrize("kind", ["large", "compressed"])
async def test_the_event_loop_goes_on_while_a_body_is_decoded(kind, settings, monkeypatch):
    """A decoder that waits for the loop's turn gets it: heartbeats do not stop for a large or compressed body."""
    turn = threading.Event()
    decode = Decoder.decode

    def waits_for_the_loop(self, delivery):
        loop.call_soon_threadsafe(turn.set)
        assert turn.wait(30), "the event loop stood still"
        return decode(self, delivery)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(Decoder, "decode", waits_for_the_loop)
    event = logged(output_full="x" * (100_000 if kind == "large" else 10))
    async with client(settings.broker) as agent, running_worker(settings):
        if kind == "large":
            await agent.publish(event)
        else:
            body = gzip.compress(event.to_json())
            await agent.publish_raw(body, "execution.logged", content_encoding="gzip")
        assert len((await agent.confirmed(1))["persisted"]) == 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
async def test_trajectories_at_the_size_limit_stay_within_memory(settings):
    """A dozen of 8 MiB, more than the budget and far fewer than the prefetch: all land, a few at a time."""
    ledger = Ledger()
    async with client(settings.broker) as agent:
        for _ in range(12):
            event, body = large_trajectory()
            await agent.publish_raw(body, "trajectory.recorded")
            ledger.published.append(event)
        async with worker_process(settings) as worker:
            await ledger.hear(agent)
            most = resident(worker.pid)
            worker.signal(15)
            assert await worker.ended() == 0
    assert most < 300 * MEBIBYTE
    await everything_is_accounted_for(ledger, settings)
