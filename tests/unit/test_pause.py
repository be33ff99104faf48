"""When a family pauses: most messages refused, by contract or database, from several sources."""

import asyncio

from support.events import decoded, delivery, logged

from worker.message import Accepted, Rejected
from worker.pause import Pause


def good(count: int) -> list:
    [message] = decoded(logged())
    return [Accepted(message, "persisted")] * count


def bad(count: int, sources: int, reason: str = "invalid") -> list:
    return [
        Rejected(delivery(b""), None, reason, [], b"", source=f"/agents/{at % sources}")
        for at in range(count)
    ]


def pause(**changes) -> Pause:
    return Pause(**{"seconds": 60, "window": 1000, "minimum": 200, "sources": 3, **changes})


def test_a_bad_deployment_pauses_its_family():
    """More than half of at least two hundred messages, from at least three sources."""
    judge = pause()
    assert not judge.record(good(99))
    assert judge.record(bad(101, sources=3))
    assert judge.active


def test_one_publishers_rubbish_never_pauses_anyone():
    """However much of it there is."""
    judge = pause()
    assert not judge.record(bad(1000, sources=2))


def test_fewer_messages_than_the_minimum_judge_nobody():
    """A handful of refusals says nothing."""
    assert not pause().record(bad(199, sources=5))


def test_half_is_not_more_than_half():
    """The rule is more than half."""
    judge = pause()
    assert not judge.record(good(100) + bad(100, sources=4))


def test_conflicts_and_undecodable_bodies_do_not_count():
    """Only what a deployment of contracts or tables can bring about."""
    assert not pause().record(bad(500, sources=5, reason="conflict"))
    assert not pause().record(bad(500, sources=5, reason="undecodable"))


def test_only_the_last_messages_count():
    """Refusals that have left the window are forgotten."""
    judge = pause()
    judge.record(bad(400, sources=5)[:150])
    assert not judge.record(good(1000))
    assert not judge.record(bad(400, sources=5))


def test_after_a_pause_one_batch_decides():
    """A good one ends it, a bad one pauses again."""
    judge = pause()
    assert judge.record(bad(300, sources=3))
    assert judge.record(bad(2, sources=1))
    assert not judge.record(good(1))
    assert not judge.record(bad(1, sources=1))


async def test_a_pause_is_over_after_its_time_or_stays_when_work_stops():
    """Whoever stops during a pause leaves the messages to redelivery."""
    judge = pause(seconds=0.01)
    judge.record(bad(300, sources=3))
    await judge.over(asyncio.Event())
    assert not judge.active
    judge = pause()
    judge.record(bad(300, sources=3))
    stop = asyncio.Event()
    stop.set()
    await judge.over(stop)
    assert judge.active
