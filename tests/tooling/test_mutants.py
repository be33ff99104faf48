"""The mutation list keeps up with the code; whether each mutant is caught is asked by `make mutants`."""

import ast

import pytest
from support.mutants import ROOT, DoesNotApply, Mutant, mutants

MUTANTS = mutants()
FIVE_OF_OLD = {
    "acknowledge before the commit",
    "drop the sort of the keys",
    "delete outbox rows before the broker confirms",
    "take a nack for success",
    "forget the digest",
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_still_applies_and_its_tests_are_there(mutant):
    """What it replaces stands once in its file, the result is Python, and each test has that name."""
    ast.parse(mutant.mutated(ROOT))
    assert mutant.mutated(ROOT) != (ROOT / mutant.file).read_text()
    assert mutant.tests
    for test in mutant.tests:
        path, _, name = test.partition("::")
        function = name.partition("[")[0]
        assert f"def {function}(" in (ROOT / path).read_text() or not name, test


def test_the_list_has_the_breakages_that_must_never_pass():
    """Names are unique, and nobody takes these off."""
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) == len(set(names))
    assert set(names) >= FIVE_OF_OLD


def test_a_mutant_that_no_longer_applies_is_an_error(tmp_path):
    """Code that moved on must take its mutant along."""
    (tmp_path / "x.py").write_text("a = 1\na = 1\n")
    for old in ("b", "a = 1"):
        with pytest.raises(DoesNotApply):
            Mutant("m", "1", "x.py", ((old, "c"),), ()).apply(tmp_path)
