"""`make mutants`: breaks a copy of the tree in each way of the list, and asks the tests named there to notice.

Exits 1 where a mutant survives: then a promise is not tested. Exits 2 where a mutant no longer applies, or where its
tests could not be run.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table
from support.mutants import ROOT, DoesNotApply, Mutant, mutants

_FAILED = re.compile(r"^(?:FAILED|ERROR) \S*?::(\S+)", re.MULTILINE)
_MOST_SECONDS = 900
_CAUGHT, _SURVIVED = 1, 0  # what pytest exits with
_LEFT_OUT = shutil.ignore_patterns(".git", ".venv*", ".fuzz", ".hypothesis", ".*_cache")
"""Compiled files stay: each is checked against its source, and a copy keeps times and sizes but where it is broken."""


def judge(mutant: Mutant, tree: Path) -> tuple[str, str]:
    """Break this tree and run the tests: CAUGHT, SURVIVED or ERROR, and by what."""
    try:
        mutant.apply(tree)
    except DoesNotApply as error:
        return "ERROR", str(error)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:randomly",
        "-p",
        "no:cacheprovider",
    ]
    try:
        done = subprocess.run(
            [*command, *mutant.tests],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree)},
            capture_output=True,
            text=True,
            timeout=_MOST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "ERROR", f"the tests did not end within {_MOST_SECONDS} s"
    if done.returncode == _SURVIVED:
        return "SURVIVED", ", ".join(mutant.tests)
    failed = _FAILED.findall(done.stdout)
    if done.returncode == _CAUGHT and failed:
        return "CAUGHT", failed[0]
    return "ERROR", done.stdout[-2000:] + done.stderr[-500:]


def _in_a_copy(mutant: Mutant) -> tuple[Mutant, str, str, float]:
    """The mutant, judged in a copy of the tree, and the seconds that it took."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=_LEFT_OUT)
        verdict, by = judge(mutant, tree)
    return mutant, verdict, by, time.monotonic() - began


def main() -> int:
    """Judge all mutants, or those whose name holds a word, and show the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only mutants whose name holds one of these")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default 2)")
    options = parser.parse_args()
    words = options.words
    chosen = [one for one in mutants() if not words or any(word in one.name for word in words)]
    console = Console(width=150, soft_wrap=True)
    table = Table("mutant", "breaks the promise", "verdict", "by", "seconds")
    verdicts = []
    with ThreadPoolExecutor(options.jobs) as side_by_side:
        for number, result in enumerate(side_by_side.map(_in_a_copy, chosen), 1):
            mutant, verdict, by, seconds = result
            last = by.splitlines()[-1] if by else ""
            console.print(
                f"{number}/{len(chosen)} {mutant.name}: {verdict} {last} ({seconds:.0f} s)"
            )
            table.add_row(mutant.name, mutant.promise, verdict, by, f"{seconds:.0f}")
            verdicts.append(verdict)
    console.print(table)
    console.print(f"{verdicts.count('CAUGHT')} of {len(verdicts)} caught")
    return 2 if "ERROR" in verdicts else int("SURVIVED" in verdicts)


if __name__ == "__main__":
    sys.exit(main())
