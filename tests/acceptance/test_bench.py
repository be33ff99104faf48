"""One small measurement of the real worker, and that a wrong result has no figure."""

import io

import pytest
from rich.console import Console

from benchmarks import keys, verify
from benchmarks.contenders.ours import Ours
from benchmarks.load import make
from benchmarks.measure import measure, measure_in
from benchmarks.services import Services


@pytest.fixture(scope="module")
def services(sandbox) -> Services:
    return Services(sandbox)


async def test_a_measured_run_gives_rate_and_cpu_and_finds_everything(services):
    """Three families at once: every row, content, confirmation and folded entity is looked at, none is wrong."""
    found = await measure(services, Ours("ours"), make("mix", 300))
    assert found.problems == []
    assert found.messages == 300
    assert found.rate > 0
    if services.pids["broker"] is not None:
        assert {"worker", "broker", "database"} <= set(found.cpu_per_10k)
    assert sum(found.cpu_per_10k.values()) > 0  # one alone may be below the kernel's tick


async def test_whatever_is_missing_or_wrong_after_a_run_is_said(services):
    """A row changed, a row gone, an entity behind, a confirmation unheard: each has its sentence."""
    load = make("mix", 100)
    async with services.place() as place:
        assert (await measure_in(services, place, Ours("ours"), load)).problems == []
        await place.database.execute("UPDATE execution_logs SET action = 'x' WHERE step_number = 3")
        await place.database.execute("DELETE FROM execution_logs WHERE step_number = 4")
        await place.database.execute("UPDATE tasks SET version = 9 WHERE version > 0")
        problems = " / ".join(await verify.verify(place, load, load.queues))
    assert "has action 'x'" in problems
    assert "is missing" in problems
    assert "tasks: " in problems
    assert (
        "100 of 100 events were not confirmed" in problems
    )  # they were taken out by the first look


async def test_keys_in_order_and_at_random_are_told_apart_by_the_log_that_they_write(
    services, tmp_path
):
    """After a checkpoint a random key touches a page of its own, whose image goes into the write-ahead log."""
    console = Console(file=io.StringIO())
    lines = await keys.main(services, console, tmp_path, rows=30_000)
    said = [dict(zip(keys.HEADS, line, strict=True)) for line in lines]
    assert [(one["keys"], one["table"]) for one in said] == [
        ("UUIDv7", "a partition a month"),
        ("UUIDv7", "without partitions"),
        ("UUIDv4", "without partitions"),
    ]
    written = [float(one["WAL bytes for a row"].replace(",", "")) for one in said]
    assert written[2] > written[1]
