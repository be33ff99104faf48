"""`python -m benchmarks`: what `make bench`, `make bench-quick`, `make bench-growth` and `make bench-choices` run."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks import charts, choices, document, growth, machine, report
from benchmarks.contenders import CONTENDERS
from benchmarks.figures import middle
from benchmarks.latency import Latency, latency, typical
from benchmarks.load import RECORDED, Load, make, recorded_place
from benchmarks.measure import Measurement
from benchmarks.rounds import Results, run
from benchmarks.schedule import FULL, QUICK, Schedule
from benchmarks.services import Services
from worker.demo.run import cancelled_by_sigterm
from worker.errors import Unavailable
from worker.sandbox import SandboxError

console = Console()
if not console.is_terminal:
    console.width = 130  # into a file: no need to fit a window
RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; 0 when every run was as it should be, 1 where some was not, 3 where no service can be had.

    Ctrl-C and SIGTERM stop everything that was started, and end it with 130.
    """
    options = _parser().parse_args(arguments)
    try:
        with Services.started() as services:
            return asyncio.run(_chosen_work(services, options))
    except SandboxError as error:
        console.print(f"[red]{error}[/]")
        return 3
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("Stopped before its end: nothing is written.")
        return 130


async def _chosen_work(services: Services, options: argparse.Namespace) -> int:
    """One of the three kinds of run; SIGTERM ends it as Ctrl-C does."""
    async with cancelled_by_sigterm():
        if options.growth:
            return await growth.main(
                services,
                console,
                _folder(options),
                most_rows=options.rows,
                axes=options.axes.split(",") if options.axes else None,
                write=options.document,
            )
        if options.choices:
            return await choices.main(
                services,
                console,
                _folder(options),
                _progress,
                rounds=options.rounds,
                write=options.document,
            )
        return await _bench(services, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="two short rounds of what matters most"
    )
    parser.add_argument(
        "--growth",
        action="store_true",
        help="rate against backlog, rows, payload, families and processes",
    )
    parser.add_argument(
        "--rows", type=int, default=5_000_000, metavar="N", help="most rows of --growth (5,000,000)"
    )
    parser.add_argument(
        "--choices", action="store_true", help="the worker without each of its design choices"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds, instead of the schedule's")
    parser.add_argument(
        "--axes", metavar="A,B", help=f"only these of {', '.join(growth.AXES)} with --growth"
    )
    parser.add_argument("--loads", metavar="A,B", help="only these loads")
    parser.add_argument(
        "--contenders", metavar="A,B", help=f"only these of {', '.join(CONTENDERS)}"
    )
    parser.add_argument("--no-latency", action="store_true", help="leave latency out")
    parser.add_argument(
        "--document", action="store_true", help="write docs/performance.md and keep the run"
    )
    parser.add_argument("--json", action="store_true", help="print the document instead of tables")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where to write the document and the charts"
    )
    return parser


def _folder(options: argparse.Namespace) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder: Path = options.output or RESULTS / stamp
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _chosen(options: argparse.Namespace) -> Schedule:
    schedule = QUICK if options.quick else FULL
    return schedule.only(
        loads=options.loads.split(",") if options.loads else None,
        contenders=options.contenders.split(",") if options.contenders else None,
        rounds=options.rounds,
    )


async def _bench(services: Services, options: argparse.Namespace) -> int:
    began = time.monotonic()
    schedule = _chosen(options)
    loads = _loads(schedule)
    results = await run(
        services, schedule.entries, loads, _progress, deadline=began + schedule.minutes * 60
    )
    if RECORDED in schedule.loads and RECORDED not in loads:
        results.left_out[RECORDED] = "WORKER_RECORDED_RUNS names no file of recorded runs"
    latencies = [] if options.no_latency else await _latencies(services, schedule, results)
    chosen = {"quick": options.quick, "seconds": round(time.monotonic() - began)}
    found = report.document(results, latencies, machine.describe(services), chosen)
    folder = _folder(options)
    (folder / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    charts.draw(found, folder)
    if options.document:
        document.write(found, folder)
    if options.json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    else:
        report.show(console, results, latencies)
        console.print(f"Written to {folder} after {found['options']['seconds']} s.")
    return 1 if any(results.bad()) else 0


def _loads(schedule: Schedule) -> dict[str, Load]:
    """Each load, as long as its hungriest contender needs it."""
    return {
        name: make(name, max(e.messages for e in schedule.entries if e.load == name))
        for name in schedule.loads
        if name != RECORDED or recorded_place()
    }


def _progress(done: int, total: int, found: Measurement) -> None:
    """One line a run, to the person who waits."""
    what = (
        "; ".join(found.problems) or f"{found.rate:,.0f}/s, {found.cpu_total:.2f} CPU s for 10,000"
    )
    sys.stderr.write(f"{done}/{total} {found.load} {found.contender}: {what}\n")


async def _latencies(services: Services, schedule: Schedule, results: Results) -> list[Latency]:
    """At the fixed rates, and at 70 % of what each contender takes; at the first in turns, several times.

    What it takes is less here than over a backlog, since its publisher is at work on the same cores: it is looked at first.
    """
    of_place: dict[tuple[str, float, bool], list[Latency]] = {}
    for look in range(schedule.latency_looks):
        for place in _rates(schedule, results):
            name, rate, of_capacity = place
            if look and rate != schedule.latency_rates[0]:
                continue
            try:
                seconds = schedule.latency_seconds
                if of_capacity:
                    rate = 0.7 * (await latency(services, CONTENDERS[name], rate, seconds)).taken
                found = await latency(services, CONTENDERS[name], rate, seconds, of_capacity=of_capacity)  # fmt: skip
                results.looks.append((look, found))
                of_place.setdefault(place, []).append(found)
            except (RuntimeError, TimeoutError, Unavailable) as error:
                at = "70 % of what it takes" if of_capacity else f"{rate:,.0f}/s"
                results.left_out[f"{name} at {at}"] = str(error)
    return [typical(looks) for looks in of_place.values()]


def _rates(schedule: Schedule, results: Results) -> list[tuple[str, float, bool]]:
    """Contender, rate, and whether that is what it takes of a backlog; a fixed rate that it cannot take is left out."""
    places = []
    for rate in schedule.latency_rates:
        for name in schedule.latency_contenders:
            capacity = middle(results.rounds_of("logs", "rate"), name)
            if capacity and rate > capacity:
                results.left_out[f"{name} at {rate:,.0f}/s"] = f"it takes {capacity:,.0f}/s at most"
            else:
                places.append((name, rate, False))
    if schedule.latency_at_capacity:
        places += [
            (name, capacity, True)
            for name in schedule.latency_contenders
            if (capacity := middle(results.rounds_of("logs", "rate"), name))
        ]
    return places


if __name__ == "__main__":
    sys.exit(main())
