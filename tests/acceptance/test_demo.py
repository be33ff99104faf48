"""The demonstration as a newcomer runs it."""

import json
import subprocess
import sys

import pytest


def worker(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `worker` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "worker", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


@pytest.mark.slow
def test_the_demonstration_ends_with_a_balanced_ledger():
    """From nothing to a verdict, with a worker killed on the way."""
    done = worker("demo", "--quick", "--agents", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every message is accounted for" in done.stdout
    assert "is killed with kill -9" in done.stdout
    assert "takes its place" in done.stdout
    for reason in ("conflict", "invalid", "undecodable", "unknown_type", "unroutable"):
        assert f"  {reason} " in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_recorded_runs_can_be_demonstrated_and_written_down(tmp_path):
    """`--from` replays a file; `--jsonl` writes its events, one a line, the same every time."""
    runs = [
        {
            "task_id": task,
            "trial": trial,
            "reward": (task + trial) % 2,
            "info": {"task": {"instruction": f"do thing {task}"}},
            "traj": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}],
        }
        for task in range(5)
        for trial in range(4)
    ]
    file = tmp_path / "runs.json"
    file.write_text(json.dumps(runs))
    lines = []
    for name in ("one.jsonl", "two.jsonl"):
        done = worker("demo", "--from", str(file), "--jsonl", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
        lines.append((tmp_path / name).read_text().splitlines())
    assert lines[0] == lines[1]
    assert len(lines[0]) == 20 * 6 + 3 + 5  # a run's events, the job's, one a group
    assert {json.loads(line)["specversion"] for line in lines[0]} == {"1.0"}
    done = worker("demo", "--from", str(file), "--workers", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "128 events of recorded runs" in done.stdout
    assert "Every message is accounted for" in done.stdout


def test_a_file_that_holds_no_runs_is_bad_usage(tmp_path):
    """Exit code 2 and a sentence, before anything is started."""
    done = worker("demo", "--from", str(tmp_path / "nowhere.json"))
    assert done.returncode == 2
    assert "nowhere.json" in done.stderr
    assert "Traceback" not in done.stderr
