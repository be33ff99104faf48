"""`worker publish` as people and scripts use it."""

import io
import json
from asyncio import to_thread

import pytest
from support.commands import command
from support.events import created, logged
from support.workers import worker_process


@pytest.fixture
def places(database_url, amqp_url):
    return {"DATABASE_URL": database_url, "AMQP_URL": amqp_url, "WORKER_HTTP_PORT": "0"}


@pytest.fixture
def file(tmp_path):
    """A file of these lines."""

    def write(*lines: bytes):
        path = tmp_path / "events.jsonl"
        path.write_bytes(b"\n".join(lines) + b"\n")
        return str(path)

    return write


def test_publishing_needs_the_broker_only(places, file):
    """And says what it did."""
    events = file(created().to_json(), logged().to_json())
    done = command("publish", events, AMQP_URL=places["AMQP_URL"])
    assert (done.code, done.err) == (0, "")
    assert "2 lines in " in done.out
    assert "published  2" in done.out
    quick = command("publish", events, "--json", "--batch", "2", AMQP_URL=places["AMQP_URL"])
    assert quick.json["published"] == quick.json["events"] == quick.json["lines"] == 2
    assert "outcomes" not in quick.json


def test_bad_lines_are_told_with_their_numbers_and_exit_1(places, file):
    """What can be published is."""
    lines = file(logged().to_json(), b"hello", b'{"a": 1}', logged().to_json())
    done = command("publish", lines, **places)
    assert done.code == 1
    assert "line 2: not JSON" in done.err
    assert "line 3: no event" in done.err
    assert "lines that are no event  2" in done.out


async def test_waiting_exits_0_only_when_everything_is_stored(settings, places, file):
    """Persisted or duplicate; a rejection is told with its reason and exits 1."""
    async with worker_process(settings):
        good = logged().to_json()
        first = await to_thread(command, "publish", file(good), "--wait", "--json", **places)
        assert (first.code, first.json["outcomes"]["persisted"]) == (0, 1)
        again = await to_thread(command, "publish", file(good), "--wait", "--json", **places)
        assert (again.code, again.json["outcomes"]["duplicate"]) == (0, 1)
        bad = json.dumps(json.loads(good) | {"time": "now"}).encode()
        lines = file(bad, logged().to_json())
        last = await to_thread(command, "publish", lines, "--wait", **places)
        assert last.code == 1
        assert "line 1: rejected as invalid: time: " in last.err
        told = " ".join(last.out.split())
        assert "published 2 persisted 1 duplicate 0 rejected 1 invalid 1" in told


def test_nobody_answers_exits_1(places, file):
    done = command("publish", file(logged().to_json()), "--wait", "--timeout", "0.3", **places)
    assert done.code == 1
    assert "without an answer  1" in done.out


def test_standard_input_is_a_file_too(places, monkeypatch):
    """`-`, as everywhere."""
    text = io.TextIOWrapper(io.BytesIO(logged().to_json() + b"\n" + created().to_json()))
    monkeypatch.setattr("sys.stdin", text)
    assert command("publish", "-", "--json", **places).json["published"] == 2


def test_mistakes_exit_2_and_a_broker_that_is_away_3(places, file):
    events = file(logged().to_json())
    assert command("publish", "/no/such/file", **places).code == 2
    assert command("publish", events, "--batch", "0", **places).code == 2
    assert command("publish", events).code == 2
    away = command("publish", events, AMQP_URL="amqp://guest:secret@127.0.0.1:1")
    assert away.code == 3
    assert "secret" not in away.err
