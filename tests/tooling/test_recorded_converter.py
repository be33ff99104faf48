"""The converter of recorded runs: the same events every time, each of which its contract accepts."""

import json
import os
import statistics
from datetime import timedelta
from pathlib import Path

import pytest

from contracts import check
from contracts.identifiers import uuid7_time_ms
from worker.demo.recorded import derived_id, events, normalised, read
from worker.demo.runs import START, Run
from worker.errors import Misconfigured


def run(task_id=0, trial=0, reward=1.0, traj=None, **info):
    return {
        "task_id": task_id,
        "trial": trial,
        "reward": reward,
        "info": {"task": {"instruction": f"task {task_id}", "user_id": "mia"}, **info},
        "traj": traj
        or [
            {"role": "system", "content": "be helpful"},
            {"role": "user", "content": "hello"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"function": {"name": "look", "arguments": '{"at": 1}'}}],
            },
            {"role": "tool", "name": "look", "content": "Error: nothing there"},
            {"role": "assistant", "content": "sorry"},
        ],
    }


@pytest.fixture
def load(tmp_path):
    """Read runs as they would stand in a file."""

    def load(*runs):
        file = tmp_path / "runs.json"
        file.write_text(json.dumps(runs))
        return read(file)

    return load


def of(found, event_type):
    return [event.data for event in found if event.type == event_type]


def test_a_second_load_is_the_same_events(load):
    """Ids, times and contents depend on nothing but the file, whatever the order of its runs."""
    runs = [run(task, trial, task % 2) for task in range(3) for trial in range(2)]
    first = [event.to_json() for event in events(load(*runs))]
    second = [event.to_json() for event in events(load(*reversed(runs)))]
    assert first == second
    assert len({json.loads(body)["id"] for body in first}) == len(first)


def test_every_event_passes_its_contract(load):
    """What the converter makes is neither undecodable nor invalid."""
    long = [{"role": "user", "content": "x" * 501}] + [
        {"role": "assistant", "content": "y\0z"},
        {"role": "weird role", "content": [{"type": "text", "text": "parts"}]},
    ] * 120
    runs = load(
        run(0, 0), run(0, 1, 0.0), run(1, 0, traj=long, user_cost=0.1234567), run(2, 0, -1.5)
    )
    found = list(events(runs))
    assert [check(event) for event in found] == [[]] * len(found)
    trajectory = of(found, "trajectory.recorded")[2]
    assert len(trajectory["steps"]) == 100
    assert max(len(data["output_summary"] or "") for data in of(found, "execution.logged")) == 500


def test_ids_are_uuid7_of_their_time(load):
    """Version and variant are right, the time inside is the event's."""
    for event in events(load(run(), run(3, 2))):
        assert event.id.version == 7
        assert event.id.variant == "specified in RFC 4122"
        assert uuid7_time_ms(event.id) == round(event.time.timestamp() * 1000)


def test_derived_ids_differ_by_every_part():
    """No two of a thousand messages share an id."""
    assert len({derived_id(START, "log", 0, 0, index) for index in range(1000)}) == 1000


def test_a_run_is_a_task_with_its_messages(load):
    """Created with the instruction, started, a log entry a message with its whole text, ended by its reward."""
    found = list(events(load(run(0, 0, 1.0), run(0, 1, 0.0, reward_info={"info": {"why": "ä"}}))))
    [good, bad] = of(found, "task.created")
    assert good["request_text"] == "task 0"
    assert good["task_id"] != bad["task_id"]
    assert [data["task_id"] for data in of(found, "task.completed")] == [good["task_id"]]
    [failed] = of(found, "task.failed")
    assert failed["task_id"] == bad["task_id"]
    assert failed["error_message"] == 'the run earned a reward of 0: {"why": "ä"}'
    logs = [data for data in of(found, "execution.logged") if data["task_id"] == good["task_id"]]
    assert [data["output_full"] for data in logs] == run()["traj"]
    assert [data["step_number"] for data in logs] == [0, 1, 2, 3, 4]
    assert [data["agent_type"] for data in logs] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert logs[2]["action"] == "calls look"
    assert logs[2]["output_summary"] == 'look({"at": 1})'
    assert [data["status"] for data in logs] == ["completed"] * 3 + ["failed", "completed"]


def test_a_trajectory_has_a_step_for_each_message_of_the_assistant(load):
    """A step holds what was seen before it and what came back."""
    [data] = of(events(load(run())), "trajectory.recorded")
    traj = run()["traj"]
    assert [step["state"]["messages"] for step in data["steps"]] == [traj[:2], traj[3:4]]
    assert [step["result"]["messages"] for step in data["steps"]] == [traj[3:4], []]
    assert data["steps"][1]["action"] == {"content": "sorry"}


@pytest.mark.parametrize("rewards", [[0, 1, 1, 0], [0.1, 0.2, 0.9], [1, 0, 0, 0, 0, 0, 0]])
def test_rewards_of_a_group_have_mean_0_and_deviation_1(rewards):
    """A group whose trials differ is scaled."""
    scaled = normalised(rewards)
    assert statistics.fmean(scaled) == pytest.approx(0, abs=1e-9)
    assert statistics.pstdev(scaled) == pytest.approx(1)


@pytest.mark.parametrize("rewards", [[0, 0, 0, 0], [1, 1], [0.1, 0.1, 0.1], [1]])
def test_a_group_without_variance_is_0(rewards):
    """Where all trials earned the same, none was better."""
    assert normalised(rewards) == [0.0] * len(rewards)


def test_trajectories_carry_the_reward_of_their_group(load):
    """Scaled reward and advantage are those of the run's own group; the job counts groups."""
    found = list(events(load(run(0, 0, 1), run(0, 1, 0), run(1, 0, 1), run(1, 1, 1))))
    data = of(found, "trajectory.recorded")
    assert [d["normalized_reward"] for d in data] == [1, -1, 0, 0]
    assert [d["advantage"] for d in data] == [0.5, -0.5, 0, 0]
    assert {d["job_id"] for d in data} == {of(found, "training.queued")[0]["job_id"]}
    assert [d["current_iteration"] for d in of(found, "training.progressed")] == [1, 2]
    assert of(found, "training.completed")[0]["metrics"] == {"mean_reward": 0.75}


def test_another_choice_of_runs_is_another_job(load):
    """Part of a file and the whole of it can be loaded into one database: tasks are shared, jobs are not."""
    part, whole = list(events(load(run(0)))), list(events(load(run(0), run(1))))
    assert of(part, "task.created")[0] in of(whole, "task.created")
    jobs = {of(found, "training.queued")[0]["job_id"] for found in (part, whole)}
    assert len(jobs) == 2
    trajectories = [
        {data["trajectory_id"] for data in of(found, "trajectory.recorded")}
        for found in (part, whole)
    ]
    assert not trajectories[0] & trajectories[1]


def test_half_a_surrogate_pair_is_replaced(load):
    """UTF-8 cannot hold it; whole pairs and every other text stay."""
    traj = [{"role": "user", "content": "half \ud83d, whole 😀", "\udead": ["\udfff"]}]
    [data] = of(events(load(run(traj=traj))), "execution.logged")
    assert data["output_full"] == {
        "role": "user",
        "content": "half \ufffd, whole 😀",
        "\ufffd": ["\ufffd"],
    }


def test_no_runs_are_no_events():
    """An empty list makes no training job."""
    assert list(events([])) == []


def test_runs_follow_each_other():
    """A trial begins after the one before has ended, at its usual length."""
    first, second = (Run.model_validate(run(0, trial)) for trial in (0, 1))
    assert first.end < second.begin
    assert second.begin - first.begin == timedelta(minutes=10)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no JSON", "cannot be read"),
        ("{}", "does not hold recorded runs"),
        ('[{"task_id": 1}]', "0.trial: Field required"),
        (json.dumps([run(), run()]), "trial 0 of task 0 twice"),
    ],
)
def test_a_file_that_holds_no_runs_is_refused(tmp_path, content, said):
    """With the file's name and what is wrong with it."""
    file = tmp_path / "runs.json"
    file.write_text(content)
    with pytest.raises(Misconfigured, match=said) as error:
        read(file)
    assert "runs.json" in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    """With its name."""
    with pytest.raises(Misconfigured, match=r"nowhere\.json"):
        read(tmp_path / "nowhere.json")


def test_the_recorded_runs_pass_their_contracts():
    """All 200 of them: 50 groups, of which 24 have no variance."""
    place = os.environ.get("WORKER_RECORDED_RUNS")
    if not place or not Path(place).is_file():
        pytest.skip("recorded runs are left out: WORKER_RECORDED_RUNS names no file")
    found = list(events(read(Path(place))))
    assert [check(event) for event in found] == [[]] * len(found)
    trajectories = of(found, "trajectory.recorded")
    assert len(trajectories) == 200
    assert sum(data["normalized_reward"] == 0 for data in trajectories) == 24 * 4
