"""`worker dead-letters` as an operator uses it, against a real broker and a real database."""

import asyncio
import base64
import json

import pytest
from support.broker import client
from support.commands import command
from support.events import logged
from support.letters import undeployed
from support.tables import count, rows


@pytest.fixture
def places(database_url, amqp_url):
    return {"DATABASE_URL": database_url, "AMQP_URL": amqp_url, "WORKER_HTTP_PORT": "0"}


@pytest.fixture
def letters(places):
    """Run `worker dead-letters …`."""

    def run(*arguments: str):
        return command("dead-letters", *arguments, **places)

    return run


def broken(event, **changes) -> bytes:
    value = json.loads(event.to_json())
    value["data"].update(changes)
    return json.dumps(value).encode()


def drain(places) -> None:
    assert command("run", "--drain", **places, WORKER_LOG_LEVEL="error").code == 0


def publish(places, *bodies, **properties) -> None:
    async def work() -> None:
        async with client(places["AMQP_URL"]) as agent:
            for body in bodies:
                await agent.publish(body, **properties)

    asyncio.run(work())


def publish_unrouted(places, settings, *bodies) -> None:
    """What was published while a family was not deployed."""

    async def work() -> None:
        async with undeployed(settings, "execution-log"), client(places["AMQP_URL"]) as agent:
            for body in bodies:
                await agent.publish(body)

    asyncio.run(work())


def test_an_operator_finds_mends_and_replays_a_letter(places, letters, tmp_path):
    """From the list to the row in the table, by the ids that the list shows."""
    bad = broken(logged(), surprise=1, step_number="three")
    publish(places, bad)
    drain(places)

    listing = letters("list")
    assert listing.code == 0
    assert "1 unresolved" in listing.out
    assert "data.step_number: Input should be" in listing.out
    short_id = next(line.split()[0] for line in listing.out.splitlines() if "invalid" in line)

    shown = letters("show", short_id)
    assert "data.surprise" in shown.out
    assert '"step_number": "three"' in shown.out
    whole = letters("show", short_id, "--json").json
    assert base64.b64decode(whole["body"]) == bad
    assert whole["body_text"] == bad.decode()
    assert (whole["reason"], whole["family"], whole["seen"]) == ("invalid", "execution-log", 1)

    refused = letters("edit", short_id, "--set", "data.step_number=3")
    assert refused.code == 1
    assert "data.surprise: Extra inputs are not permitted" in refused.err
    mended = letters("edit", short_id, "--set", "data.step_number=3", "--unset", "data.surprise")
    assert mended.code == 0
    assert whole["id"] in mended.out

    planned = letters("replay", "--dry-run", "--json").json
    assert planned == {
        "routes": [
            {
                "family": "execution-log",
                "reason": "invalid",
                "exchange": "agent.messages",
                "routing_key": "execution.logged",
                "letters": 1,
            }
        ]
    }
    assert letters("show", short_id, "--json").json["replays"] == 0

    assert letters("replay", short_id, "--json").json == {
        "published": 1,
        "failed": [],
        "skipped": 0,
    }
    drain(places)
    after = letters("show", short_id, "--json").json
    assert (after["resolution"], after["replays"]) == ("edited", 1)
    assert letters("list", "--json").json["total"] == 0
    assert letters("list", "--resolved", "--json").json["total"] == 1
    assert asyncio.run(count(places["DATABASE_URL"], "execution_logs")) == 1


def test_filters_choose_and_limit(places, letters, settings):
    """Each filter by itself, all of them together, and the total beside what is shown."""
    publish(places, broken(logged(source="/agents/a", tenant="acme"), step_number=-1), b"no json")
    publish_unrouted(places, settings, logged(source="/agents/b"))
    drain(places)

    def total(*filters: str) -> int:
        return letters("list", "--json", *filters).json["total"]

    assert total() == total("--unresolved") == total("--all") == 3
    assert total("--reason", "invalid") == 1
    assert total("--reason", "invalid", "--reason", "undecodable") == 2
    assert total("--family", "unrouted") == 1
    assert total("--family", "execution-log") == 2
    assert total("--type", "execution.logged") == 2
    assert total("--source", "/agents/b") == 1
    assert total("--tenant", "acme") == 1
    assert total("--tenant", "acme", "--reason", "undecodable") == 0
    assert total("--since", "1h") == total("--until", "2100-01-01T00:00Z") == 3
    assert total("--until", "1h") == total("--since", "2100-01-01") == 0
    limited = letters("list", "--json", "--limit", "2").json
    assert (limited["total"], len(limited["letters"])) == (3, 2)
    ids = [one["id"] for one in limited["letters"]]
    assert total("--id", ids[0], "--id", ids[1]) == total(*ids) == 2
    assert letters("discard", ids[0], "--yes", "--json").json == {"discarded": 1}
    assert (total(), total("--resolved"), total("--all")) == (2, 1, 3)
    listing = letters("list", "--limit", "1")
    assert "2 unresolved (1 shown, the newest; --limit shows more)" in listing.out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["list", "--reason", "bad"], "undecodable, invalid"),
        (["list", "--since", "yesterday"], "2h for two hours ago"),
        (["list", "--all", "--resolved"], "only one of"),
        (["show", "xyz"], "is no id"),
        (["show", "00000000"], "there is no dead letter"),
        (["replay", "00000000-0000-0000-0000-000000000000"], "there is no dead letter"),
        (["edit", "00000000"], "there is no dead letter"),
        (["import"], "either the FILE"),
        (["import", "/no/such/file"], "/no/such/file cannot be read"),
        (["import", "--queue", "no.such.queue"], "there is no queue"),
        (["export", "--output", "/no/such/folder/file"], "cannot be written"),
    ],
)
def test_a_mistake_exits_2_with_a_sentence_that_says_what_to_do(letters, arguments, named):
    done = letters(*arguments)
    assert done.code == 2
    assert named in " ".join(done.err.replace("│", " ").split())
    assert "Traceback" not in done.err


def test_a_service_that_is_away_exits_3(places, letters):
    """Lists need the database only; a replay needs both."""
    nowhere = {"AMQP_URL": "amqp://guest:secret@127.0.0.1:1", "WORKER_START_TIMEOUT": "0"}
    url = places["DATABASE_URL"]
    assert command("dead-letters", "list", DATABASE_URL=url).code == 0
    done = command("dead-letters", "replay", DATABASE_URL=url, **nowhere)
    assert done.code == 3
    assert "127.0.0.1:1" in done.err
    assert "secret" not in done.err
    gone = command("dead-letters", "list", DATABASE_URL="postgresql://u:secret@127.0.0.1:1/d")
    assert gone.code == 3
    assert "secret" not in gone.err


def test_discarding_asks_and_an_unanswered_question_discards_nothing(places, letters):
    """--yes does not ask; the rows stay, and --all replays them."""
    publish(places, b"no json", b"no json either")
    drain(places)
    asked = letters("discard")
    assert asked.code == 2
    assert "2 letters would be discarded: say --yes" in asked.err
    assert letters("discard", "--yes", "--json").json == {"discarded": 2}
    assert letters("discard", "--yes", "--json").json == {"discarded": 0}
    assert letters("replay", "--json").json["published"] == 0
    assert letters("replay", "--all", "--json").json["published"] == 2


def test_what_a_publisher_wrote_cannot_steer_the_terminal(places, letters):
    """Control characters are shown, not sent."""
    event = json.loads(logged().to_json()) | {
        "type": "execution.\x1b[31mred",
        "source": "/\x1b]0;title\x07",
    }
    publish(places, json.dumps(event).encode(), b"\x1b[2J not json", routing_key="execution.x")
    drain(places)
    listing = letters("list").out
    assert "execution.\\x1b[31mred" in listing
    shown = [letters("show", one["id"]).out for one in letters("list", "--json").json["letters"]]
    assert not any("\x1b" in text or "\x07" in text for text in (listing, *shown))


def test_bytes_that_are_no_text_are_shown_as_a_hex_dump(places, letters):
    publish(places, b"\xff\xfe\x00\x01abc")
    drain(places)
    (one,) = letters("list", "--json").json["letters"]
    assert "00000000  ff fe 00 01 61 62 63" in letters("show", one["id"]).out
    assert letters("show", one["id"], "--json").json["body_text"] is None


def test_an_export_moves_to_another_database(places, letters, tmp_path, empty_database_url):
    """Export, import, and import again; bad lines are named and the rest goes on."""
    publish(places, b"no json", broken(logged(), step_number=-1))
    drain(places)
    file = tmp_path / "letters.jsonl"
    assert letters("export", "--output", str(file)).code == 0
    assert len(file.read_text().splitlines()) == 2
    other = {"DATABASE_URL": empty_database_url}
    assert command("migrate", **other).code == 0
    done = command("dead-letters", "import", str(file), "--json", **other)
    assert (done.code, done.json) == (0, {"new": 2, "known": 0, "bad": []})
    with file.open("a") as more:
        more.write("nonsense\n")
    again = command("dead-letters", "import", str(file), "--json", **other)
    assert again.code == 1
    assert (again.json["new"], again.json["known"]) == (0, 2)
    assert again.json["bad"][0]["line"] == 3
    columns = "id, body, errors::text, headers::text, first_seen_at, seen"
    sql = f"SELECT {columns} FROM dead_letters ORDER BY id"
    assert asyncio.run(rows(other["DATABASE_URL"], sql)) == asyncio.run(
        rows(places["DATABASE_URL"], sql)
    )


def test_an_edit_in_an_editor(places, letters, monkeypatch, tmp_path):
    """What the editor leaves is checked; an edit that is refused is not lost; no change stores nothing."""
    publish(places, broken(logged(), status="done"))
    drain(places)
    (one,) = letters("list", "--json").json["letters"]
    editor = tmp_path / "editor"

    def edit_with(script: str):
        editor.write_text(f"#!/bin/sh\n{script}\n")
        editor.chmod(0o755)
        return command("dead-letters", "edit", one["id"], **places, VISUAL=str(editor))

    assert "nothing is stored" in edit_with("true").err
    refused = edit_with("""sed -i 's/"done"/"finished"/' "$1" """)
    assert refused.code == 1
    assert "data.status" in refused.err
    assert "your edit is in /" in refused.err
    assert letters("show", one["id"], "--json").json["edited_body"] is None
    assert edit_with("""sed -i 's/"done"/"completed"/' "$1" """).code == 0
    edited = json.loads(letters("show", one["id"], "--json").json["edited_body_text"])
    assert edited["data"]["status"] == "completed"
    assert letters("edit", one["id"], "--revert").code == 0
    assert letters("show", one["id"], "--json").json["edited_body"] is None


def test_an_edit_by_file_can_be_forced(places, letters, tmp_path):
    """A body that the worker would reject is stored only where that is asked for."""
    publish(places, b"no json")
    drain(places)
    (one,) = letters("list", "--json").json["letters"]
    file = tmp_path / "body"
    file.write_bytes(b"{}")
    assert letters("edit", one["id"], "--body", str(file)).code == 1
    assert letters("edit", one["id"], "--body", str(file), "--force").code == 0
    assert letters("show", one["id"], "--json").json["edited_body_text"] == "{}"
    both = letters("edit", one["id"], "--body", str(file), "--set", "a=1")
    assert both.code == 2


def test_a_replay_that_waits_says_what_became_of_each(places, letters, settings):
    """0 only where all are stored; what nobody answers is told."""
    publish_unrouted(places, settings, logged())
    drain(places)
    nobody = letters("replay", "--wait", "--timeout", "0.3", "--json")
    assert nobody.code == 1
    assert len(nobody.json["unanswered"]) == 1
    drain(places)
    assert letters("list", "--resolved", "--json").json["total"] == 1
    again = letters("replay", "--wait", "--all", "--json")
    assert (again.code, again.json["resolved"]) == (0, 1)
