"""The worker without one of its design choices can still be had, and each choice names what there is."""

import subprocess
import sys

import pytest

from benchmarks.contenders import CONTENDERS
from benchmarks.contenders.contender import ROOT
from benchmarks.contenders.without import CHOICES, WITHOUT, Without
from benchmarks.document import PAGE, put
from worker.settings import Settings, environment_name

UNDO_ALL = (
    "from benchmarks.contenders.without import CHOICES; [c.undo() for c in CHOICES if c.undo]"
)


def test_everything_that_is_to_be_undone_is_there():
    """A name that went away in the worker would be undone without any effect."""
    subprocess.run([sys.executable, "-c", UNDO_ALL], cwd=ROOT, check=True)
    names = set(map(environment_name, Settings.model_fields))
    assert {name for choice in CHOICES for name in choice.settings} <= names


def test_each_choice_is_a_contender_that_differs_from_the_worker_as_it_is():
    """By a setting, by a change to the program, or by the database; else the ratio would say nothing."""
    for contender in WITHOUT:
        assert CONTENDERS[contender.name] is contender
        choice = contender.choice
        assert choice.settings or choice.undo or choice.sql
        assert not contender.can("another load")


@pytest.mark.parametrize("contender", WITHOUT, ids=lambda one: one.name)
def test_what_is_started_is_the_worker_behind_the_change(contender: Without):
    """The command is the worker's own, with the setting or through the module that makes the change."""

    class Place:
        database_url, amqp_url = "postgresql://", "amqp://"

    class Load:
        families = ("execution-log",)

    [(command, environment)] = contender.commands(Place(), Load())
    assert command[-3:] == ["--drain", "--families", "execution-log"]
    assert contender.choice.settings.items() <= environment.items()
    changed = "benchmarks.contenders.without" in command
    assert changed == bool(contender.choice.undo)
    assert not changed or contender.choice.name in command


def test_a_part_of_the_page_is_written_between_its_marks_and_nowhere_else(tmp_path, monkeypatch):
    """A run of one kind leaves the figures of the others as they were."""
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    monkeypatch.setattr("benchmarks.document.PAGE", page)
    put("growth", "@@one@@")
    before = page.read_text()
    put("growth", "@@two@@")
    assert page.read_text() == before.replace("@@one@@", "@@two@@")
    with pytest.raises(ValueError, match="no place for"):
        put("nothing", "")


def test_a_worker_in_service_does_not_end_with_its_backlog():
    """Where messages come at a steady rate, the queue is empty again and again."""

    class Place:
        database_url, amqp_url = "postgresql://", "amqp://"

    class Load:
        families = ("execution-log",)

    [(command, _)] = CONTENDERS["ours"].in_service().commands(Place(), Load())
    assert "--drain" not in command
