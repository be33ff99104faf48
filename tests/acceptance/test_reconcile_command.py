"""`worker reconcile` as an operator, and as a supervisor of agents, runs it."""

import asyncio
import json
from dataclasses import asdict

import aio_pika
import pytest
from support.broker import client
from support.commands import command
from support.events import created, logged
from support.tables import connected
from support.workers import drain

from contracts.client import Publisher
from contracts.identifiers import uuid7
from worker.operations import reconcile as operation

SOURCE = "/agents/tester"
NOWHERE = "127.0.0.1:1"


@pytest.fixture
def places(settings):
    return {"DATABASE_URL": settings.database, "AMQP_URL": settings.broker, "WORKER_HTTP_PORT": "0"}


def numbered(event, sequence, epoch):
    return event.model_copy(update={"sequence": str(sequence), "epoch": epoch})


async def publish(settings, *events):
    async with client(settings.broker) as agent:
        await agent.publish(*events)


async def reconcile(places, *arguments):
    return await asyncio.to_thread(command, "reconcile", "--wait", "0", *arguments, **places)


async def test_all_that_an_agent_published_is_there(settings, places, tmp_path):
    """The publisher says how far it came, the ledger has all of it: exit 0, in words and in JSON."""
    async with Publisher(settings.broker, source=SOURCE, replies=False) as publisher:
        for event in [*(logged() for _ in range(20)), created(source="/agents/other")]:
            await publisher.publish(event)
        told = tmp_path / "published.jsonl"
        told.write_text(
            "\n".join(json.dumps(asdict(one), default=str) for one in publisher.published)
        )
        last = str(publisher.last_sequence), str(publisher.epoch)
    assert last[0] == "20"
    before = await reconcile(places, "--published", str(told), "--json")
    assert (before.code, before.json["on_its_way"], before.json["missing"]) == (0, 21, 0)
    assert before.json["waiting"] == {"worker.execution-log": 20, "worker.task-lifecycle": 1}
    assert "may be on their way" in (await reconcile(places, "--published", str(told))).out
    await drain(settings)
    done = await reconcile(places, "--published", str(told), "--json")
    assert (done.code, done.json["complete"], done.json["epochs"], done.json["events"]) == (
        0,
        True,
        2,
        21,
    )
    done = await reconcile(places)
    assert (done.code, done.err) == (0, "")
    assert "nothing is missing" in done.out
    done = await reconcile(places, "--source", SOURCE, "--epoch", last[1], "--last", last[0])
    assert done.code == 0


async def test_every_kind_of_trouble_is_named_with_its_numbers(settings, places):
    """Missing, doubled, in a dead letter, discarded; a letter that is replayed and stored is none any more."""
    epoch = uuid7()
    fixable = numbered(logged(), 5, epoch)
    bad = fixable.model_copy(update={"data": {**fixable.data, "step_number": -1}})
    unwanted = numbered(logged(), 6, epoch).model_copy(update={"type": "execution.unheard"})
    await publish(settings, *(numbered(logged(), at, epoch) for at in (1, 4, 4, 9)), bad, unwanted)
    await drain(settings)

    done = await reconcile(places, "--json")
    assert done.code == 1
    (told,) = done.json["findings"]
    assert (told["tenant"], told["source"], told["epoch"]) == ("default", SOURCE, str(epoch))
    ranges = {
        kind: told[kind]["ranges"] for kind in ("missing", "doubled", "dead_letters", "discarded")
    }
    assert ranges == {
        "missing": [[2, 3], [7, 8]], "doubled": [[4, 4]], "dead_letters": [[5, 6]], "discarded": []
    }  # fmt: skip
    assert (done.json["missing"], done.json["doubled"], done.json["dead_letters"]) == (4, 1, 2)
    words = (await reconcile(places)).out
    assert "2-3, 7-8" in words
    assert "4 missing, 1 doubled, 2 in dead letters, 0 discarded" in words

    def letters(*arguments):
        done = command("dead-letters", *arguments, **places)
        assert done.code == 0, done.err
        return done

    await asyncio.to_thread(letters, "discard", "--type", "execution.unheard", "--yes")
    [letter] = (await asyncio.to_thread(letters, "list", "--json")).json["letters"]
    await asyncio.to_thread(letters, "edit", letter["id"], "--set", "data.step_number=1")
    await asyncio.to_thread(letters, "replay", letter["id"])
    await drain(settings)
    (told,) = (await reconcile(places, "--json")).json["findings"]
    assert told["dead_letters"]["count"] == 0
    assert told["discarded"]["ranges"] == [[6, 6]]
    assert told["missing"]["ranges"] == [[2, 3], [7, 8]]


async def test_the_end_that_never_came_is_missing_once_the_queues_are_empty(settings, places):
    """Nobody but the publisher knows of it; what still waits in a queue is on its way."""
    epoch = uuid7()
    told = ("--source", SOURCE, "--epoch", str(epoch), "--last", "3")
    await publish(settings, numbered(logged(), 1, epoch))
    await drain(settings)
    assert (await reconcile(places)).code == 0
    done = await reconcile(places, *told, "--json")
    assert (done.code, done.json["findings"][0]["missing"]["ranges"]) == (1, [[2, 3]])
    await publish(settings, numbered(logged(), 2, epoch))
    done = await reconcile(places, *told, "--json")
    assert (done.code, done.json["on_its_way"], done.json["findings"][0]["missing"]["count"]) == (
        0,
        2,
        0,
    )


async def test_what_comes_while_it_looks_again_is_not_missing(settings, places):
    """It waits for the workers as long as it was told to."""
    epoch = uuid7()
    await publish(settings, *(numbered(logged(), at, epoch) for at in range(1, 6)))
    told = ("--source", SOURCE, "--epoch", str(epoch), "--last", "5", "--wait", "60", "--json")
    looking = asyncio.create_task(reconcile(places, *told))
    await drain(settings)
    done = await looking
    assert (done.code, done.json["events"], done.json["findings"]) == (0, 5, [])


async def test_letters_that_cannot_be_read_may_hold_what_is_missing(settings, places):
    """Their number is told beside what is missing."""
    epoch = uuid7()
    await publish(settings, numbered(logged(), 2, epoch), b"{", numbered(logged(), 3, epoch))
    await drain(settings)
    done = await reconcile(places)
    assert done.code == 1
    assert "1 unresolved dead letters have no number" in done.out


async def test_of_too_many_epochs_only_the_sums_are_told(settings, places, monkeypatch):
    """Memory does not grow with the number of epochs that have something to tell."""
    monkeypatch.setattr(operation, "MOST_ACCOUNTS", 2)
    await publish(settings, *(numbered(logged(), 3, uuid7()) for _ in range(5)))
    await drain(settings)
    done = await reconcile(places, "--json")
    assert (done.code, done.json["missing"], done.json["epochs"]) == (1, 10, 5)
    assert (len(done.json["findings"]), done.json["findings_left_out"]) == (2, 3)
    assert "and 3 more epochs" in (await reconcile(places)).out


async def test_letters_take_their_numbers_along(settings, places, tmp_path):
    """Export and import of dead letters, and `show`, know them."""
    epoch = uuid7()
    bad = numbered(logged(), 1, epoch).model_copy(update={"data": {}})
    await publish(settings, bad)
    await drain(settings)
    file = tmp_path / "letters.jsonl"

    async def letters(*arguments):
        done = await asyncio.to_thread(command, "dead-letters", *arguments, **places)
        assert done.code == 0, done.err
        return done

    await letters("export", "--output", str(file))
    async with connected(settings.database) as connection:
        await connection.execute("DELETE FROM dead_letters")
    assert (await reconcile(places, "--json")).json["discarded"] == 1
    await letters("import", str(file))
    assert (await reconcile(places, "--json")).json["dead_letters"] == 1
    line = json.loads(file.read_text())
    assert line["sequences"] == [
        {"tenant_id": "default", "source": SOURCE, "epoch": str(epoch), "ranges": [[1, 1]]}
    ]
    line["sequences"][0]["ranges"] = [[5, 1]]
    file.write_text(json.dumps(line | {"id": str(uuid7())}))
    done = await asyncio.to_thread(command, "dead-letters", "import", str(file), **places)
    assert done.code == 1
    assert "must not end before it begins" in done.err + done.out


@pytest.mark.parametrize(
    ("arguments", "told", "named"),
    [
        (["--last", "3"], "", "--last needs --source and --epoch"),
        (["--published", "FILE", "--source", "/a"], "{}", "leave --tenant, --source and --epoch out"),
        (["--published", "FILE"], "", "tells of no epoch"),
        (["--published", "FILE"], '{"source": "/a", "epoch": "x", "sequence": 1}', "line 1: epoch: "),
        (["--published", "FILE"], "\n{", "line 2: the line: Invalid JSON"),
        (["--published", "FILE"], '{"source": "/a", "epoch": "019a9f6e-2f0b-7c44-9d2b-0c8a6f1f5e21", "sequence": -1}', "line 1: sequence: "),
        (["--published", "/no/such/file"], "", "/no/such/file cannot be read"),
        (["--since", "yesterday"], "", "2h for two hours ago"),
        (["--epoch", "x"], "", "--epoch"),
        (["--last", "0"], "", "--last"),
    ],
)  # fmt: skip
def test_a_mistake_exits_2_with_a_sentence_that_names_it(arguments, told, named, tmp_path):
    """Before any service is asked."""
    file = tmp_path / "FILE"
    file.write_text(told)
    words = [str(file) if word == "FILE" else word for word in arguments]
    done = command("reconcile", *words)
    assert done.code == 2
    assert named in " ".join(done.err.replace("│", " ").split())
    assert "Traceback" not in done.err


@pytest.mark.parametrize("which", ["DATABASE_URL", "AMQP_URL"])
def test_a_service_that_is_away_exits_3(places, which):
    """It names the place, and not the password."""
    scheme = places[which].partition("://")[0]
    done = command("reconcile", **{**places, which: f"{scheme}://u:geheim@{NOWHERE}/d"})
    assert done.code == 3
    assert NOWHERE in done.err
    assert "geheim" not in done.out + done.err


async def test_the_end_of_a_closed_queue_is_no_reason_to_wait_for_ever(settings, places):
    """A queue that is not there holds nothing."""
    epoch = uuid7()
    await publish(settings, numbered(logged(), 2, epoch))
    await drain(settings)
    async with await aio_pika.connect(settings.broker) as connection:
        channel = await connection.channel()
        await channel.queue_delete("worker.trajectory")
    assert (await reconcile(places)).code == 1
