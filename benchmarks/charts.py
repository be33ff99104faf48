"""Charts of what was found: rate, CPU seconds by process, latency. PNG files, drawn by matplotlib where it is installed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

_PARTS = {"worker": "#3b6fb6", "broker": "#e08a2e", "database": "#6a9a58"}
_ORDER = (
    "reference",
    "reference-2",
    "reference-event-a-message",
    "bare-copy",
    "ours",
    "ours-2",
    "ours-batch",
    "mq-bridge",
    "faststream-asyncpg",
    "aio-pika-sqlalchemy",
    "faststream-sqlalchemy",
    "celery",
)


def draw(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw every chart that the document has figures for; none where matplotlib is not installed."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 (installed for benchmarks only)
    except ImportError:
        return []
    mpl.use("agg")
    folder.mkdir(parents=True, exist_ok=True)
    runs = [run for run in found["runs"] if not run["problems"]]
    loads = list(dict.fromkeys(run["load"] for run in runs))
    paths = []
    if runs:
        paths += [_rates(runs, loads, folder / "rate.png"), _cpu(runs, loads, folder / "cpu.png")]
    if found["latencies"]:
        paths.append(_latency(found["latencies"], folder / "latency.png"))
    return paths


def _axes(count: int) -> tuple[Any, list[Any]]:
    from matplotlib import pyplot as plt  # noqa: PLC0415 (as above)

    figure, axes = plt.subplots(count, 1, figsize=(9, 0.6 + 2.6 * count), squeeze=False)
    return figure, [axis[0] for axis in axes]


def _names(runs: Sequence[Mapping[str, Any]], load: str) -> list[str]:
    present = {run["contender"] for run in runs if run["load"] == load}
    return [name for name in _ORDER if name in present][::-1]


def _values(runs: Sequence[Mapping[str, Any]], load: str, name: str) -> list[Mapping[str, Any]]:
    return [run for run in runs if run["load"] == load and run["contender"] == name]


def _rates(runs: Sequence[Mapping[str, Any]], loads: Sequence[str], path: Path) -> Path:
    """Median rate with the spread over rounds, a panel a load, on a logarithmic scale."""
    figure, axes = _axes(len(loads))
    for axis, load in zip(axes, loads, strict=True):
        names = _names(runs, load)
        rates = [[run["rate"] for run in _values(runs, load, name)] for name in names]
        middles = [median(values) for values in rates]
        below = [middle - min(values) for middle, values in zip(middles, rates, strict=True)]
        above = [max(values) - middle for middle, values in zip(middles, rates, strict=True)]
        colours = ["#3b6fb6" if name.startswith("ours") else "#9aa3ad" for name in names]
        axis.barh(names, middles, xerr=[below, above], color=colours, ecolor="#333333")
        for place, middle in enumerate(middles):
            axis.annotate(f" {middle:,.0f}", (middle, place), va="bottom", fontsize=8)
        axis.set_xscale("log")
        axis.set_title(f"{load}: messages a second (median, spread over rounds)", fontsize=10)
    return _save(figure, path)


def _cpu(runs: Sequence[Mapping[str, Any]], loads: Sequence[str], path: Path) -> Path:
    """CPU seconds for 10,000 messages, stacked by process, a panel a load; peers would dwarf the rest on a plain scale."""
    figure, axes = _axes(len(loads))
    for axis, load in zip(axes, loads, strict=True):
        names = [name for name in _names(runs, load) if name.startswith(("ours", "ref", "bare"))]
        left = [0.0] * len(names)
        for part, colour in _PARTS.items():
            values = [
                median(run["cpu_per_10k"].get(part, 0.0) for run in _values(runs, load, name))
                for name in names
            ]
            axis.barh(names, values, left=left, color=colour, label=part)
            left = [one + other for one, other in zip(left, values, strict=True)]
        axis.legend(fontsize=8)
        axis.set_title(f"{load}: CPU seconds for 10,000 messages", fontsize=10)
    return _save(figure, path)


def _latency(latencies: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """p50, p99 and p99.9 of every contender at every rate, in milliseconds, on a logarithmic scale."""
    figure, [axis] = _axes(1)
    names = [f"{found['contender']} at {found['rate']:,.0f}/s" for found in latencies][::-1]
    for figure_name, label, marker in (
        ("p50", "p50", "o"),
        ("p99", "p99", "s"),
        ("p999", "p99.9", "^"),
    ):
        values = [found[figure_name] * 1000 for found in latencies][::-1]
        axis.plot(values, names, marker, label=label)
    axis.set_xscale("log")
    axis.legend(fontsize=8)
    axis.set_title("publish to persisted confirmation, ms", fontsize=10)
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    return path
