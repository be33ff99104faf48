"""`make fuzz`: fuzzes every target for its share of the time, and says what was tried and found.

The corpus of the repository (tests/corpus) is the seed; what was found interesting on this machine is kept in .fuzz and
used again. An input that breaks a promise is left in .fuzz, named; give it a name that says what it is, put it into
tests/corpus, and mend the worker. Exits 1 where one was found.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from support.fuzzing import TARGETS

ROOT = Path(__file__).parents[2]
FOUND = ROOT / ".fuzz"
_DONE = re.compile(r"Done (\d+) runs")
_COVERED = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)/")
_MEMORY = "-rss_limit_mb=700"
_ONE_INPUT = "-timeout=10"


@dataclass
class Fuzzed:
    """What became of one target."""

    name: str
    runs: int
    covered: int
    corpus: int
    seconds: float
    broke: bool
    log: Path


def fuzz(name: str, seconds: int) -> Fuzzed:
    """Fuzz one target in a process of its own, for this long or until something breaks."""
    working = FOUND / name
    working.mkdir(parents=True, exist_ok=True)
    log = FOUND / f"{name}.log"
    began = time.monotonic()
    with log.open("wb") as out:
        code = subprocess.run(
            [
                *(sys.executable, str(ROOT / "tests/fuzz/target.py"), name),
                *(str(working), str(ROOT / "tests/corpus" / name)),
                *(f"-max_total_time={seconds}", "-max_len=4096", _MEMORY, _ONE_INPUT),
                *(f"-dict={ROOT / 'tests/fuzz/words.dict'}", "-print_final_stats=1"),
                f"-artifact_prefix={FOUND}/{name}-",
            ],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"},
            check=False,
        ).returncode
    text = log.read_text(errors="replace")
    runs = _DONE.findall(text) or re.findall(r"number_of_executed_units: (\d+)", text) or ["0"]
    covered = _COVERED.findall(text) or [("0", "0", "0")]
    return Fuzzed(
        name=name,
        runs=int(runs[-1]),
        covered=int(covered[-1][0]),
        corpus=int(covered[-1][2]),
        seconds=time.monotonic() - began,
        broke=code != 0,
        log=log,
    )


def main() -> int:
    """Fuzz the targets, two at a time, and show the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    given = parser.parse_args()
    FOUND.mkdir(exist_ok=True)
    share = max(1, given.seconds * given.processes // len(given.targets))
    with ThreadPoolExecutor(given.processes) as pool:
        done = list(pool.map(lambda name: fuzz(name, share), given.targets))
    table = Table("target", "executions", "branches covered", "inputs kept", "seconds", "result")
    for one in done:
        result = (
            f"[red]BROKEN[/] see {one.log.relative_to(ROOT)}" if one.broke else "[green]held[/]"
        )
        counts = (f"{one.runs:,}", str(one.covered), str(one.corpus), f"{one.seconds:.0f}")
        table.add_row(one.name, *counts, result)
    Console(width=120).print(table)
    return int(any(one.broke for one in done))


if __name__ == "__main__":
    sys.exit(main())
