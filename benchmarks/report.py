"""What was found, for people (rich tables) and for programs (one JSON document)."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import targets
from benchmarks.figures import Ratio, drift, middle
from benchmarks.latency import Latency
from benchmarks.rounds import Results

SCHEMA = 1
"""The version of the JSON document's form."""


def document(
    results: Results,
    latencies: list[Latency],
    machine: Mapping[str, str],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything, as JSON."""
    return {
        "schema": SCHEMA,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "options": dict(options),
        "machine": dict(machine),
        "drift": drift([found.calibration for found in results.good()]),
        "left_out": results.left_out,
        "targets": [targets.as_json(verdict) for verdict in targets.judge(results.rounds_of)],
        "latencies": [asdict(latency) for latency in latencies],
        "runs": [
            {"round": number, **asdict(found), "rate": found.rate, "cpu_total": found.cpu_total}
            for number, found in results.measurements
        ],
    }


def show(console: Console, results: Results, latencies: list[Latency]) -> None:
    """Print the targets, the figures of every contender, and what to think of them."""
    console.print(_targets(results))
    console.print(_figures(results))
    if latencies:
        console.print(_latencies(latencies))
    good = list(results.good())
    if good:
        busy = sum(found.others for found in good) / len(good)
        console.print(
            f"The machine drifted by {drift([found.calibration for found in good]):.2f}x between runs, and other "
            f"programs kept {busy:.2f} cores busy on average: trust ratios before rates, and neither far where the second "
            "figure is above 0.2."
        )
    for name, why in results.left_out.items():
        console.print(f"[yellow]Left out:[/] {name}: {why}")
    for found in results.bad():
        problems = "; ".join(found.problems)
        console.print(f"[red]No figure:[/] {found.contender} on {found.load}: {problems}")


def _targets(results: Results) -> Table:
    table = Table(title="Targets", box=None, pad_edge=False, header_style="bold")
    for name in ("target", "load", "wanted", "found", "spread", "rounds", "met"):
        table.add_column(name, justify="right" if name in ("wanted", "found", "rounds") else "left")
    for verdict in targets.judge(results.rounds_of):
        sign = "≤" if verdict.target.at_most else "≥"
        unit = "x" if verdict.target.below else ""
        found = verdict.found
        table.add_row(
            verdict.target.text,
            verdict.load,
            f"{sign} {verdict.target.bound:g}{unit}",
            f"{found.median:.2f}{unit}" if found else "-",
            _spread(found),
            str(found.rounds) if found else "0",
            {True: "[green]yes[/]", False: "[red]no[/]", None: "not measured"}[verdict.met],
        )
    return table


def _spread(found: Ratio | None) -> str:
    return f"{found.lowest:.2f} to {found.highest:.2f}" if found else ""


def _figures(results: Results) -> Table:
    table = Table(title="Medians", box=None, pad_edge=False, header_style="bold")
    table.add_column("contender")
    table.add_column("load")
    for name in ("messages/s", "CPU s for 10,000", "worker", "broker", "database", "MiB", "runs"):
        table.add_column(name, justify="right")
    for (load, contender), runs in sorted(by_contender(results).items()):
        cpu = {name: _median(runs, name) for name in ("worker", "broker", "database")}
        table.add_row(
            contender,
            load,
            f"{middle([{'': found.rate} for found in runs], ''):,.0f}",
            f"{middle([{'': found.cpu_total} for found in runs], ''):.2f}",
            *(f"{cpu[name]:.2f}" if cpu[name] is not None else "-" for name in cpu),
            f"{max(found.memory_mib for found in runs):.0f}",
            str(len(runs)),
        )
    return table


def _median(runs: list[Any], name: str) -> float | None:
    return middle([found.cpu_per_10k for found in runs], name)


def by_contender(results: Results) -> dict[tuple[str, str], list[Any]]:
    """The good measurements of each load and contender."""
    found: dict[tuple[str, str], list[Any]] = {}
    for measurement in results.good():
        found.setdefault((measurement.load, measurement.contender), []).append(measurement)
    return found


def _latencies(latencies: list[Latency]) -> Table:
    table = Table(
        title="Latency, publish to persisted confirmation, ms",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    table.add_column("contender")
    for name in ("messages/s", "p50", "p99", "p99.9", "messages"):
        table.add_column(name, justify="right")
    for found in latencies:
        figures = (f"{value * 1000:.1f}" for value in (found.p50, found.p99, found.p999))
        rate = f"{found.rate:,.0f}" + (" (70 % of what it takes)" if found.of_capacity else "")
        table.add_row(found.contender, rate, *figures, str(found.messages))
    return table
