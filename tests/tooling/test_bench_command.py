"""What `worker bench` publishes, judges and prints, without services."""

import asyncio
import io
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from rich.console import Console
from support.commands import command
from support.waiting import until

from contracts.registry import families
from worker.bench import machine, run
from worker.bench.broker import BrokerAlone
from worker.bench.database import Answers, DatabaseAlone
from worker.bench.events import CHOICES, FAMILIES, make
from worker.bench.persisting import _delivery
from worker.bench.results import Accounts, Results
from worker.bench.show import show
from worker.bench.verdict import Figures, judge
from worker.bench.whole import Backlog, Latency, percentile
from worker.decode import Decoder
from worker.message import Message

FIGURES = Figures(
    rate=9_000,
    broker_rate=90_000,
    database_rate=30_000,
    client_busy=0.5,
    processes=1,
    messages=20_000,
    worker_cpu=2.0,
    cores=4,
    machine_busy=0.5,
    transactions_per_second=60,
    in_flight=2,
    flush=0.0001,
    database_round_trip=0.0001,
    broker_round_trip=0.0002,
)


@pytest.mark.parametrize("family", CHOICES)
def test_what_is_published_passes_its_contract(family):
    """Every message of every choice, with an id and a key that no other has."""
    decoders = {name: Decoder(contract).decode for name, contract in families().items()}
    items = make(family, 200) + make(family, 200)
    decoded = [one for item in items for one in decoders[item.family](_delivery(1, item))]
    assert all(isinstance(one, Message) for one in decoded)
    assert [one.id for one in decoded] == [item.id for item in items]
    assert len({item.id for item in items}) == 400
    keys = {(one.type, one.key) for one in decoded}
    assert len(keys) == 400


def test_the_mix_holds_every_family_in_its_share():
    """Seven logs, two events of tasks and one trajectory of ten."""
    assert Counter(item.family for item in make("mix", 100)) == dict(
        zip(FAMILIES, (70, 20, 10), strict=True)
    )


def test_the_nearest_limit_is_the_verdict():
    """Whichever stage alone does least; the worker by the CPU time of its processes."""
    worker = judge(FIGURES)
    assert (worker.stage, worker.share) == ("worker", 0.9)
    assert "90% of the 10,000" in worker.text
    assert "--processes 2" in worker.advice
    assert judge(replace(FIGURES, processes=4)).stage == "database"
    assert judge(replace(FIGURES, database_rate=9_500)).stage == "database"
    assert judge(replace(FIGURES, broker_rate=9_100)).stage == "broker"
    unknown = judge(replace(FIGURES, worker_cpu=None, machine_busy=None))
    assert unknown.stage == "database"
    assert [limit.stage for limit in unknown.limits] == ["broker", "database"]


def test_the_advice_follows_from_what_was_measured():
    """Disk, network, neither; a core that is left, none; a machine that has no more."""
    database = replace(FIGURES, database_rate=9_500)
    slow_disk = judge(replace(database, flush=0.02)).advice
    assert "20 ms for the disk" in slow_disk
    assert "60%" in slow_disk
    assert "1.50 ms for the network" in judge(replace(database, database_round_trip=0.0015)).advice
    assert "max_wal_size" in judge(database).advice
    assert "another machine" in judge(replace(FIGURES, cores=1)).advice
    full = judge(replace(FIGURES, machine_busy=0.97)).advice
    assert "another machine" in full
    assert "97% busy" in full
    assert "batch mode" in judge(replace(FIGURES, broker_rate=9_100)).advice


def test_a_rate_that_no_limit_explains_is_said():
    """Far below every limit, and above one on a machine that drifts; a limit that was not reached is one at least."""
    low = replace(FIGURES, rate=3_000)
    assert "no stage alone" in judge(low).text
    assert "WORKER_TRANSACTIONS" in judge(low).advice
    full = judge(replace(low, machine_busy=1.0)).advice
    assert full.startswith("The 4 cores of this machine were 100% busy")
    assert "no less than the 10,000" in judge(replace(FIGURES, rate=11_000)).text
    limits = {one.stage: one for one in judge(replace(FIGURES, client_busy=0.95)).limits}
    assert limits["database"].at_least
    assert not limits["broker"].at_least


def results(problems=()):
    backlog = Backlog(20_000, 20_000, 2.0, 2.5, 0.75)
    return Results(
        family="mix",
        processes=2,
        body_bytes=1342,
        cores=4,
        services=("RabbitMQ 4.0 (given)", "PostgreSQL 18 (given)"),
        broker_round_trip=0.0004,
        answers=Answers(0.0002, 0.0042),
        database=DatabaseAlone(20_000, 1.6, 90, 12, 0.5, 44_000, (uuid4(),)),
        broker=BrokerAlone(20_000, 17_000, 60_000),
        latency=Latency(100, 450, 0.0031, 0.0094, 0.0011),
        backlog=backlog,
        verdict=judge(replace(FIGURES, processes=2, database_rate=12_500, broker_rate=60_000)),
        accounts=Accounts(40_000, 40_000, 20_000, problems),
    )


def test_the_same_figures_are_shown_and_told_to_programs():
    """The verdict, the rates and the times; every problem is said, and the answer is then no."""
    said = io.StringIO()
    show(results(), Console(file=said, width=150))
    shown = said.getvalue()
    for part in ("10,000/s", "12,500/s", "60,000/s", "9.40 ms", "1.25 s", "4.20 ms", "75%"):
        assert part in shown
    assert "Every one of 40,000 messages is accounted for." in shown
    told = json.loads(json.dumps(results().as_json()))
    assert told["complete"] is True
    assert told["verdict"]["stage"] == "database"
    assert told["verdict"]["text"] in shown.replace("\n", " ")
    assert told["messages_per_second"] == 10_000
    assert told["latency_ms"]["p99"] == 9.4
    assert told["worker_cpu_seconds_per_10000"] == 1.25
    assert told["stages"]["database"]["flush_ms"] == 4.0

    said = io.StringIO()
    missing = results(("3 messages have no row",))
    show(missing, Console(file=said, width=150))
    assert "No: 3 messages have no row." in said.getvalue()
    assert "is accounted for" not in said.getvalue()
    assert missing.as_json()["complete"] is False


@pytest.mark.parametrize(("problems", "code"), [((), 0), (("3 messages have no row",), 1)])
def test_a_problem_is_the_exit_code(problems, code, monkeypatch):
    """And standard output is JSON all the same, with what is missing in it."""
    monkeypatch.setattr(run, "bench", lambda options, terminal: results(problems))
    done = command("bench", "--json")
    assert done.code == code
    assert done.json["accounts"]["problems"] == list(problems)


def test_percentiles_are_values_that_occurred():
    """By nearest rank."""
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile(list(range(1, 201)), 0.99) == 198
    assert percentile([7], 0.99) == 7


def test_the_system_tells_of_cpu_time():
    """Of a process that is there; nothing of one that is not."""
    assert machine.process_seconds(1) is not None
    assert machine.process_seconds(2**22 + 1) is None
    assert machine.share_busy((1.0, 10.0), (3.0, 14.0)) == 0.5
    assert machine.share_busy((1.0, 10.0), (1.0, 10.0)) is None
    assert machine.share_busy(None, (3.0, 14.0)) is None


def test_a_family_that_is_none_is_bad_usage():
    """With the ones that there are."""
    done = command("bench", "--family", "bicycles")
    assert done.code == 2
    assert "execution-log" in done.err


_HOLDING = """
import asyncio, signal, sys
from worker.bench.whole import standing_still

async def hold():
    async with standing_still([int(sys.argv[1])]):
        print("stopped", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(hold())
"""


@pytest.mark.parametrize("end", ["told", "killed"])
async def test_processes_that_stand_still_go_on_whatever_becomes_of_us(end):
    """At the end of the block, and when the process that stopped them is killed in it."""
    pipe = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    worker = await asyncio.create_subprocess_exec("cat", **pipe)
    holding = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HOLDING, str(worker.pid), **pipe
    )
    try:
        assert await holding.stdout.readline() == b"stopped\n"
        await until(lambda: _state(worker.pid) == "T")
        if end == "killed":
            holding.kill()
        holding.stdin.close()
        await holding.wait()
        worker.stdin.write(b"going on\n")
        async with asyncio.timeout(60):
            assert await worker.stdout.readline() == b"going on\n"
    finally:
        if holding.returncode is None:
            holding.kill()
        await holding.communicate()
        worker.kill()
        await worker.communicate()


def _state(pid):
    """As the system tells it: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
