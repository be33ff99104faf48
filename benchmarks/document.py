"""Writes docs/performance.md from the document of a full run: what was measured, on what, how far to trust it."""

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
CHARTS = ROOT / "docs" / "performance"
KEPT = ROOT / "benchmarks" / "results" / "full.json"


def write(found: Mapping[str, Any], folder: Path) -> None:
    """Put the figures and the charts of this run into the page, and keep its document."""
    for kept in (KEPT.parent, CHARTS):
        kept.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "results.json", KEPT)
    for chart in folder.glob("*.png"):
        shutil.copy(chart, CHARTS / chart.name)
    put("figures", figures(found))


def put(part: str, text: str) -> None:
    """Write this part of the page between its marks. Raises ValueError where the page has no such marks."""
    begin, end = f"<!-- {part}: written by a run -->\n", f"<!-- end of {part} -->\n"
    before, found, rest = PAGE.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{PAGE.name} has no place for {part}")
    PAGE.write_text(f"{before}{begin}\n{text.strip()}\n\n{end}{after}")


def figures(found: Mapping[str, Any]) -> str:
    """The part of the page that a run decides."""
    parts = [
        f"\nMeasured on {found['finished_at'][:10]}, in {found['options']['seconds']} s.\n",
        table(("", ""), found["machine"].items()),
        _trust(found),
        "\n### Targets\n",
        table(
            ("target", "load", "wanted", "found", "spread over rounds", "met"),
            map(_target, found["targets"]),
        ),
        "\n### Every contender\n",
        "Medians over rounds, and the most of memory; CPU in seconds for 10,000 messages.\n",
        table(
            ("load", "contender", "messages/s", "CPU", "worker", "broker", "database", "MiB"),
            _medians(found["runs"]),
        ),
        "\n![rate](performance/rate.png)\n\n![CPU seconds](performance/cpu.png)\n",
    ]
    if found["latencies"]:
        parts += [
            "\n### Latency\n",
            "From publish to the persisted confirmation in the publisher's hand, in milliseconds.\n",
            table(
                ("contender", "messages/s", "p50", "p99", "p99.9"),
                map(_latency, found["latencies"]),
            ),
            "\n![latency](performance/latency.png)\n",
        ]
    if found["left_out"]:
        left = [f"- {name}: {why}" for name, why in found["left_out"].items()]
        parts += ["\nLeft out:\n", "\n".join(left), "\n"]
    return "\n".join(parts) + "\n"


def _trust(found: Mapping[str, Any]) -> str:
    busy = [run["others"] for run in found["runs"] if not run["problems"]]
    return (
        f"\nThe machine drifted by {found['drift']:.2f} times between runs, and programs that were no part of the benchmark "
        f"kept {sum(busy) / max(1, len(busy)):.2f} cores busy on average.\n"
    )


def _target(target: Mapping[str, Any]) -> tuple[str, ...]:
    sign = "≤" if target["at_most"] else "≥"
    if target["median"] is None:
        return (
            target["target"],
            target["load"],
            f"{sign} {target['bound']:g}",
            "",
            "",
            "not measured",
        )
    spread = f"{target['lowest']:.2f} to {target['highest']:.2f} ({target['rounds']})"
    met = "yes" if target["met"] else "no"
    return (
        target["target"],
        target["load"],
        f"{sign} {target['bound']:g}",
        f"{target['median']:.2f}",
        spread,
        met,
    )


def _medians(runs: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for run in runs:
        if not run["problems"]:
            groups[run["load"], run["contender"]].append(run)
    rows = []
    for (load, contender), group in sorted(groups.items()):
        parts = [
            median(run["cpu_per_10k"].get(name, 0.0) for run in group)
            for name in ("worker", "broker", "database")
        ]
        rows.append(
            (
                load,
                contender,
                f"{median(run['rate'] for run in group):,.0f}",
                f"{median(run['cpu_total'] for run in group):.2f}",
                *(f"{part:.2f}" for part in parts),
                f"{max(run['memory_mib'] for run in group):.0f}",
            )
        )
    return rows


def _latency(found: Mapping[str, Any]) -> tuple[str, ...]:
    rate = f"{found['rate']:,.0f}" + (" (70 % of what it takes)" if found["of_capacity"] else "")
    return (
        found["contender"],
        rate,
        *(f"{found[name] * 1000:.1f}" for name in ("p50", "p99", "p999")),
    )


def table(heads: Sequence[str], rows: Any) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines) + "\n"
