"""docs/guarantees.md names tests that exist, shows every crash point, and leaves no promise unshown."""

import ast
import re
from typing import get_args

from support.documents import ROOT

from worker.crash_points import CrashPoint

TEXT = (ROOT / "docs" / "guarantees.md").read_text()
LIST = (ROOT / "tests" / "faults" / "README.md").read_text()


def functions(path: str) -> set[str]:
    """The names of the tests in a file."""
    module = ast.parse((ROOT / path).read_text())
    return {
        node.name
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_test_that_is_named_is_there():
    """A promise whose test was renamed or dropped would be a promise that nothing shows."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)
    assert len(named) > 30
    for path, name in named:
        assert name in functions(path), f"{path}::{name}"


def test_every_promise_has_its_parts():
    """What it says, why it holds, and which tests show it."""
    promises = re.split(r"^## (?=\d\. )", TEXT, flags=re.MULTILINE)[1:]
    assert len(promises) == 5
    for promise in promises:
        for part in ("**What it says.**", "**Why it holds.**", "| shown for | by |", "::test_"):
            assert part in promise, f"{promise.splitlines()[0]}: {part}"


def test_every_crash_point_is_in_the_table():
    """Where a process can die is where a test kills it."""
    for point in get_args(CrashPoint):
        assert point == "none" or f"`{point}`" in TEXT, point


def test_every_fault_test_is_in_the_list():
    """tests/faults/README.md names each file of tests/faults, and files that are there."""
    folder = ROOT / "tests" / "faults"
    named = {path for path in re.findall(r"`([\w./]+\.py)`", LIST) if "support/" not in path}
    for path in named:
        assert (folder / path).exists(), path
