"""The report of a run as a document: what was run, on what, what was done to it, and the verdict."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from worker.errors import Misconfigured
from worker.torture.faults import FAULTS
from worker.torture.results import Results
from worker.torture.show import counts
from worker.torture.verdict import MEANING, SORTS


def write(results: Results, file: Path) -> None:
    """Write it. Raises Misconfigured where the file cannot be written."""
    try:
        file.write_text(text(results))
    except OSError as error:
        raise Misconfigured(f"{file} cannot be written: {error.strerror}") from None


def text(results: Results) -> str:
    """The document."""
    options, verdict = results.options, results.verdict
    judged = "balanced" if verdict.balanced else "NOT balanced"
    recorded = f", {results.recorded:,} recorded events again and again" if results.recorded else ""
    lines = [
        "# Torture report",
        "",
        f"Written by `worker torture` on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
        "",
        f"**Verdict: {judged}.**",
        "",
        *_table(
            ("what must be zero", "found", "meaning"),
            [(sort, f"{verdict.counts[sort]:,}", MEANING[sort]) for sort in SORTS],
        ),
        "",
        *(f"- {sort}: {who}" for sort in SORTS for who in verdict.offenders.get(sort, ())),
        "## What was run",
        "",
        *_table(
            ("", ""),
            [
                ("published for", f"{options.seconds / 60:g} minutes"),
                ("publishers", f"{options.agents} agents and a careless one{recorded}"),
                ("workers", f"{options.workers}"),
                ("seed", f"{options.seed}"),
                ("faults", options.pace_of_faults),
                *(("service", service.rpartition(" on ")[0]) for service in results.services),
                ("machine", f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"),
                ("Python", platform.python_version()),
            ],
        ),
        "",
        "## Messages",
        "",
        *_table(("", "number"), counts(results)),
        "",
        "## Faults",
        "",
        *_table(
            ("fault", "times", "what is done"),
            [
                (name, f"{count:,}", FAULTS[name].text)
                for name, count in sorted(results.faults.items())
            ],
        ),
        "",
    ]
    return "\n".join(lines)


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [
        f"| {' | '.join(header)} |",
        f"|{' --- |' * len(header)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
