"""Which deliveries share a transaction, and how a culprit is cornered."""

import asyncio
from collections import deque

from hypothesis import given
from hypothesis import strategies as st
from support.events import delivery
from support.waiting import until

from worker.batch import Batcher, Solitude
from worker.message import Properties


def deliveries(*counts: int, size: int = 1) -> deque:
    """Deliveries that were handed out this often before."""
    return deque(
        delivery(
            b"x" * size,
            tag=at,
            redelivered=count > 0,
            properties=Properties(headers={"x-delivery-count": count} if count else None),
        )
        for at, count in enumerate(counts, 1)
    )


def test_the_next_batch_holds_as_many_deliveries_as_the_last_ones_events_leave_room_for():
    """Bodies of many events are taken one by one or a few at once, single events by the hundred again."""
    batcher, waiting = Batcher(500, 10**6), deliveries(*[0] * 1_300)
    sizes = []
    for each in (1, 500, 500, 200, 200, 10_000, 1, 1):
        batch = batcher.take(waiting)
        sizes.append(len(batch))
        batcher.learn(len(batch), each * len(batch))
    assert sizes == [500, 500, 1, 1, 3, 3, 1, 291]


@given(
    st.lists(st.integers(0, 5), max_size=60),
    st.integers(1, 20),
    st.integers(1, 50),
    st.integers(1, 9),
)
def test_every_delivery_is_in_one_batch_in_order_and_within_the_limits(
    counts, most, most_bytes, size
):
    """Nothing is skipped, split or held back; only a single delivery may exceed the bytes."""
    waiting = deliveries(*counts, size=size)
    expected = list(waiting)
    batcher = Batcher(most, most_bytes)
    taken = []
    while waiting:
        batch = batcher.take(waiting)
        assert 1 <= len(batch) <= most
        assert len(batch) == 1 or size * len(batch) <= most_bytes
        taken += batch
        batcher.succeeded(batch)
    assert taken == expected


def test_a_batch_with_redelivered_messages_halves_with_each_redelivery():
    """Once redelivered: half; twice: a quarter; from the third on: alone."""
    batcher = Batcher(100, 10**6)
    assert len(batcher.take(deliveries(*[0] * 200))) == 100
    assert len(batcher.take(deliveries(*[1] * 200))) == 50
    assert len(batcher.take(deliveries(*[2] * 200))) == 25
    waiting = deliveries(*[3] * 200)
    first = batcher.take(waiting)
    assert len(first) == 1
    assert batcher.is_suspect(first)


def sizes_until_full(count: int) -> list[int]:
    """Sizes of the batches that this many innocents take until batches are full again, or they are done."""
    batcher, waiting = Batcher(500, 10**6), deliveries(*[4] * count)
    sizes: list[int] = []
    while waiting and 500 not in sizes:
        batch = batcher.take(waiting)
        sizes.append(len(batch))
        batcher.succeeded(batch)
    return sizes


def test_suspects_share_more_the_more_of_them_have_gone_well():
    """An outage that redelivered two thousand innocents costs some fifty small transactions, not two thousand."""
    sizes = sizes_until_full(2000)
    assert sizes[:9] == [1] * 8 + [2]
    assert sizes == sorted(sizes[:-1]) + sizes[-1:]
    assert len(sizes) < 60
    assert len(sizes_until_full(10_000)) < 65


def test_a_culprit_among_thousands_is_alone_after_a_few_crashes():
    """Each life clears the messages before the culprit, and the batch that holds it is an eighth of those cleared."""
    count, culprit, crashes = 2000, 1234, 0
    rest = list(range(count))
    while rest[0] != culprit:
        batcher, waiting = Batcher(500, 10**6), deliveries(*[3 + crashes] * len(rest))
        while True:
            batch = batcher.take(waiting)
            here, after = rest[: len(batch)], rest[len(batch) :]
            if culprit in here:
                crashes += 1
                break
            batcher.succeeded(batch)
            rest = after
    assert crashes <= 4


async def test_alone_means_that_nothing_else_runs():
    """A suspect waits for what runs, and what comes later waits for the suspect."""
    solitude, log = Solitude(100), []
    inside, leave = asyncio.Event(), asyncio.Event()

    async def neighbour() -> None:
        async with solitude.shared(list(deliveries(0))):
            inside.set()
            await leave.wait()
            log.append("neighbour")

    async def suspect() -> None:
        async with solitude.alone():
            log.append("suspect")

    async def late() -> None:
        async with solitude.shared(list(deliveries(0))):
            log.append("late")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(neighbour())
        await inside.wait()
        alone = tasks.create_task(suspect())
        await asyncio.wait([alone], timeout=0.01)
        tasks.create_task(late())
        leave.set()
    assert log == ["neighbour", "suspect", "late"]


def test_a_delivery_count_that_a_publisher_made_up_counts_for_nothing():
    """From RabbitMQ 4.0 a first delivery brings the publisher's own header, if there is one."""
    forged = Properties(headers={"x-delivery-count": 9})
    assert delivery(b"", properties=forged).delivery_count == 0
    assert delivery(b"", properties=forged, redelivered=True).delivery_count == 9
    assert delivery(b"", redelivered=True).delivery_count == 1


async def test_large_batches_take_turns_and_small_ones_do_not_wait_for_them():
    """So many bytes are between decode and commit in a process; one body that is larger counts as half of them."""
    solitude, running = Solitude(100), set()
    names = ("first", "second", "third", "small", "huge")
    leave = {name: asyncio.Event() for name in names}

    async def run(name: str, size: int) -> None:
        async with solitude.shared(list(deliveries(0, size=size))):
            running.add(name)
            await leave[name].wait()
            running.discard(name)

    async with asyncio.TaskGroup() as tasks:
        for name, size in zip(names, (40, 40, 40, 10, 500), strict=True):
            tasks.create_task(run(name, size))
        await until(lambda: running == {"first", "second", "small"})
        leave["first"].set()
        await until(lambda: running == {"second", "third", "small"})
        leave["second"].set()
        await until(lambda: running == {"third", "small", "huge"})
        for name in names:
            leave[name].set()
