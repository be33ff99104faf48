"""Starting, awaiting, stopping and killing a process with all its descendants."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from worker.sandbox import SandboxError
from worker.sandbox.leftovers import Record, clean_up, this_system
from worker.sandbox.processes import (
    free_port,
    gone,
    process_table,
    process_tree,
    run,
    wait_until,
)
from worker.sandbox.server import ServerProcess

ROOT = Path(__file__).parents[2]

# A parent with a child and a grandchild; each writes its pid beside the others.
FAMILY = """
echo $$ >>pids
sh -c 'echo $$ >>pids; sh -c "echo \\$\\$ >>pids; sleep 600; :"; :'
:
"""


@pytest.fixture
def server(tmp_path):
    """Build a server from a shell script, and leave nothing of it running."""
    servers = []

    def build(script, **options):
        options.setdefault("ready", lambda: True)
        one = ServerProcess(
            name="The server",
            command=["sh", "-c", f"cd {tmp_path}; {script}"],
            environment={"PATH": os.environ["PATH"]},
            log=tmp_path / "log",
            advice="Try another one.",
            **options,
        )
        servers.append(one)
        return one

    yield build
    for one in servers:
        one.kill()


def pids_in(path):
    try:
        return [int(pid) for pid in path.read_text().split()]
    except (OSError, ValueError):
        return []


@pytest.fixture
def family(server, tmp_path):
    one = server(FAMILY, ready=lambda: len(pids_in(tmp_path / "pids")) == 3)
    one.start()
    return one


@pytest.fixture
def pids(family, tmp_path):
    return pids_in(tmp_path / "pids")


def states(pids):
    """The state of each process as the kernel tells it: S asleep, T stopped."""
    texts = (Path(f"/proc/{pid}/stat").read_text() for pid in pids)
    return [text[text.rindex(")") + 2] for text in texts]


def test_a_free_port_can_be_listened_on_and_is_not_a_standard_one():
    """5432 and 5672, which belong to others, are out of its range."""
    assert 12_000 <= free_port() < 32_000


def test_a_tree_is_the_process_and_its_descendants(pids):
    """The parent comes first, and grandchildren are found."""
    assert set(pids) <= set(process_tree(pids[0]))
    assert process_tree(pids[0])[0] == pids[0]


def test_killing_ends_all_descendants(family, pids):
    """Nothing is left when it returns."""
    family.kill()
    assert gone(pids)
    assert family.pid is None


def test_stopping_asks_the_server_and_waits(server, tmp_path):
    """It may do its work before it goes."""
    one = server(
        "trap 'echo bye >said; exit 0' TERM; touch up; while :; do sleep 0.01; done",
        ready=(tmp_path / "up").exists,
    )
    one.start()
    one.stop()
    assert (tmp_path / "said").read_text() == "bye\n"


def test_a_server_that_does_not_stop_is_killed_and_said(server, tmp_path):
    """The limit holds, and nothing is left."""
    one = server(
        "trap '' TERM; touch up; while :; do sleep 0.01; done",
        ready=(tmp_path / "up").exists,
        stop_seconds=0.2,
    )
    one.start()
    pid = one.pid
    with pytest.raises(SandboxError, match="did not stop within 0 s and was killed"):
        one.stop()
    assert gone([pid])


def test_pausing_stops_every_process_and_resuming_lets_them_run(family, pids):
    """The whole tree is stopped, not just the parent."""
    family.pause()
    assert wait_until(lambda: states(pids) == ["T", "T", "T"], seconds=5)
    family.resume()
    assert wait_until(lambda: "T" not in states(pids), seconds=5)


def test_a_paused_server_can_be_stopped_and_killed(family, pids):
    """Being paused does not keep anything alive."""
    family.pause()
    family.close()
    assert gone(pids)


def test_a_server_that_ends_while_it_starts_is_an_error_with_its_log(server):
    """The text says what happened, shows the end of the log and says what to do."""
    one = server("echo the disk is on fire; exit 3", ready=lambda: False)
    with pytest.raises(SandboxError) as caught:
        one.start()
    lines = str(caught.value).splitlines()
    assert lines[0] == "The server ended with status 3 while it started."
    assert "    the disk is on fire" in lines
    assert lines[-1] == "Try another one."


def test_a_server_that_is_never_ready_is_killed(server):
    """The limit holds, and nothing is left."""
    seen = []
    one = server("sleep 600", ready=lambda: False, start_seconds=0.2, started=seen.append)
    with pytest.raises(SandboxError, match="was not ready within 0 s"):
        one.start()
    assert gone(seen)


def test_a_start_can_be_cancelled(server):
    """Who waits for it is told at once."""
    cancelled = threading.Event()
    cancelled.set()
    one = server("sleep 600", ready=lambda: False, cancelled=cancelled)
    began = time.monotonic()
    with pytest.raises(SandboxError, match="was stopped while it started"):
        one.start()
    assert time.monotonic() - began < 5
    assert one.pid is None


def test_a_program_that_is_not_there_is_an_error():
    """The text names it."""
    with pytest.raises(SandboxError, match="/no/such/program cannot be run"):
        run("/no/such/program", environment={}, seconds=1)


def test_a_program_that_takes_too_long_is_an_error():
    """The limit holds."""
    with pytest.raises(SandboxError, match="sleep did not end within 0 s"):
        run("sleep", "600", environment=os.environ, seconds=0.1)


def test_what_a_killed_sandbox_left_is_ended_and_removed(family, pids, tmp_path):
    """Its note is not locked any more: its processes are killed and its folder goes."""
    directory = tmp_path / "left"
    directory.mkdir()
    with Record.open(tmp_path, directory) as record:
        record.add(pids[0])
        note = (tmp_path / "running" / "left.json").read_text()
    (tmp_path / "running" / "left.json").write_text(note)
    said = []
    clean_up(tmp_path, said.append)
    assert gone(pids)
    assert not directory.exists()
    assert said == [f"removed what a killed sandbox had left in {directory}"]
    assert list((tmp_path / "running").iterdir()) == []


def test_a_running_sandbox_is_left_alone(family, pids, tmp_path):
    """Its note is locked as long as it runs."""
    with Record.open(tmp_path, tmp_path) as record:
        record.add(pids[0])
        clean_up(tmp_path, pytest.fail)
        assert not gone(pids[:1])


def left_note(folder, **changes):
    """Write the note of a sandbox that is not there any more."""
    note = folder / "running" / "left.json"
    note.parent.mkdir(exist_ok=True)
    content = {"system": this_system(), "directory": str(folder / "none"), "processes": []}
    note.write_text(json.dumps(content | changes))
    return note


def test_another_process_with_the_same_id_is_left_alone(family, pids, tmp_path):
    """Ids are used again: the time of the start tells processes apart."""
    note = left_note(tmp_path, processes=[[pids[0], "1"]])
    clean_up(tmp_path, pytest.fail)
    assert not gone(pids)
    assert not note.exists()


def test_what_another_machine_or_container_left_is_not_touched(family, pids, tmp_path):
    """Its process ids mean nothing here, and its folder may be in use there."""
    started = process_table()[pids[0]].started
    directory = tmp_path / "left"
    directory.mkdir()
    note = left_note(
        tmp_path,
        system="another",
        directory=str(directory),
        processes=[[pids[0], started]],
    )
    clean_up(tmp_path, pytest.fail)
    assert not gone(pids)
    assert directory.exists()
    assert note.exists()


def test_importing_the_sandbox_imports_no_driver_and_no_docker():
    """It is quick to import, and the standard library is enough until it is used."""
    program = "import sys, worker.sandbox; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    imported = {name.partition(".")[0] for name in done.stdout.splitlines()}
    assert "worker" in imported
    assert not imported & {"asyncpg", "sqlalchemy", "testcontainers", "docker", "aio_pika"}
