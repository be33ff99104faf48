"""What `worker torture` prints and writes, without services."""

import io

import pytest
from rich.console import Console
from support.commands import command

from worker.errors import Misconfigured
from worker.torture import report
from worker.torture.faults import FAULTS
from worker.torture.ledger import ROW, Ledger
from worker.torture.results import Results
from worker.torture.run import Options
from worker.torture.show import Screen
from worker.torture.verdict import SORTS, Verdict, judge


def results(*, balanced):
    ledger, verdict = Ledger(), Verdict()
    for number in range(3):
        key = ledger.issue()
        ledger.note_sent(key)
        ledger.note_accepted(key)
        if balanced or number:
            ledger.note_heard(str(key), "persisted")
            ledger.add(number, ROW)
    judge(ledger, verdict)
    return Results(
        options=Options(seconds=60, seed=4711),
        services=("RabbitMQ 4.0 (local) on 127.0.0.1:1", "PostgreSQL 18 (wheel) on 127.0.0.1:2"),
        ledger=ledger,
        verdict=verdict,
        faults={"kill": 3, "broker-cut": 1},
        history=[],
        rows={"execution_logs": 3},
        letters={"invalid": 2},
        stall=1.5,
        seconds=60.0,
        starts=5,
        largest_bytes=2**27,
        own_bytes=2**28,
        recorded=10,
    )


@pytest.mark.parametrize("balanced", [True, False])
def test_the_verdict_is_shown_written_and_told_to_programs(balanced, tmp_path):
    """The same figures in all three; offenders are named; the document says on what it ran, without addresses."""
    found = results(balanced=balanced)
    said = io.StringIO()
    Screen(Console(file=said, width=200)).results(found)
    file = tmp_path / "report.md"
    report.write(found, file)
    written = file.read_text()
    lost = str(found.ledger.id_of(0))
    assert ("is accounted for" in said.getvalue()) == balanced
    assert ("**Verdict: balanced.**" in written) == balanced
    assert found.as_json()["balanced"] is balanced
    assert found.as_json()["lost"] == (0 if balanced else 1)
    for text in (said.getvalue(), written, str(found.as_json())):
        assert (lost in text) != balanced
        assert all(sort in text for sort in SORTS)
    for part in ("4711", "RabbitMQ 4.0 (local)", "| kill | 3 |", "128 MiB", "10 recorded events"):
        assert part in written
    assert "127.0.0.1" not in written


def test_a_report_that_cannot_be_written_is_said(tmp_path):
    """With the place and the reason."""
    with pytest.raises(Misconfigured, match="cannot be written"):
        report.write(results(balanced=True), tmp_path / "nowhere" / "report.md")


def test_faults_are_listed_and_unknown_ones_refused():
    """Before anything is started."""
    done = command("torture", "--faults", "help")
    assert done.code == 0
    assert all(fault.name in done.out for fault in FAULTS.values())
    done = command("torture", "--faults", "kill,earthquake")
    assert done.code == 2
    assert "'earthquake'" in done.err
    done = command("torture", "--report", "no/such/folder/report.md")
    assert done.code == 2
    assert "no/such/folder" in done.err
