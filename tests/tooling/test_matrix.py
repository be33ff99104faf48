"""The matrix without a system: what it refuses, and where it writes its table."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "matrix"


@pytest.fixture
def matrix(monkeypatch):
    """The program's modules, as `python tests/matrix` finds them."""
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("matrix_main", FOLDER / "__main__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in ("systems", "rounds"):
        sys.modules.pop(name, None)


def test_who_is_not_root_is_told_so_in_a_sentence(matrix, monkeypatch, capsys):
    """And nothing is made."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["matrix"])
    assert matrix.main() == 2
    assert "needs root" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--systems", "bookworm,hamm"], ["--postgres", "docker"]])
def test_what_is_not_known_is_refused_with_what_is(matrix, monkeypatch, capsys, options):
    """Before anything is made."""
    monkeypatch.setattr(sys, "argv", ["matrix", *options])
    with pytest.raises(SystemExit) as ended:
        matrix.main()
    assert ended.value.code == 2
    assert "is none of" in capsys.readouterr().err


def test_the_table_takes_the_place_of_the_last_one(matrix, monkeypatch, tmp_path):
    """Between the two marks of the document; the rest stays."""
    document = tmp_path / "versions.md"
    document.write_text(f"before\n{matrix.BEGIN}\nold\n{matrix.END}\nafter\n")
    monkeypatch.setattr(matrix, "DOCUMENT", document)
    one = matrix.Round("sid", "4.3.6", "18.6", "3.14.10", 340, 0, 14, 1279, ())
    matrix._write([one])
    text = document.read_text()
    assert "| sid | 4.3.6 | 18.6 | 3.14.10 | 340 | 0 | 14 | 1279 |" in text
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")


def test_the_document_has_the_place_for_it(matrix):
    """Else the table of a long run would be lost."""
    assert matrix.DOCUMENT.read_text().count(matrix.BEGIN) == 1
    assert matrix.DOCUMENT.read_text().count(matrix.END) == 1
