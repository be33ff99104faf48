"""The dearest inputs that are known: processor time and memory of one decode each, in a process of its own.

A measurement for tests/fuzz/README.md, and no test: bounds are tested by counting (tests/fuzz/test_corpus.py).
"""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from support import fuzzing, limits

from contracts.registry import families
from worker.broker import properties
from worker.decode import Decoder
from worker.families import plan


def measure(case: str) -> tuple[float, int, int]:
    """Processor seconds, MiB that were added at the peak, and bytes of the input."""
    work: Callable[[], object]
    if case in limits.CASES:
        raw, encoding, _ = limits.CASES[case]()
        decoder = Decoder(families()["execution-log"], facts=plan().facts)
        work = lambda: decoder.decode(fuzzing.delivery(raw, encoding))  # noqa: E731 (one of two)
    else:
        raw = limits.header(limits.TABLES[case][0])
        work = lambda: properties.parse(raw)  # noqa: E731 (as above)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    work()
    seconds = time.process_time() - began
    added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return seconds, added // 1024, len(raw)


def measure_apart(case: str) -> tuple[float, int, int]:
    """The same in a child, so that no input profits from memory that another left behind."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe(duplex=False)
    child = fork.Process(target=lambda: there.send(measure(case)))
    child.start()
    there.close()
    measured: tuple[float, int, int] = here.recv()
    child.join()
    return measured


def main() -> int:
    """Show the twelve that take longest."""
    measured = {case: measure_apart(case) for case in (*limits.CASES, *limits.TABLES)}
    table = Table("input", "bytes", "processor seconds", "MiB added")
    for case in sorted(measured, key=lambda case: measured[case][0], reverse=True)[:12]:
        seconds, added, size = measured[case]
        table.add_row(case, f"{size:,}", f"{seconds:.2f}", str(added))
    Console(width=110).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
