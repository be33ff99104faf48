"""`worker torture` in its short form, and proof that its verdict can fail."""

import io
from collections import Counter

import pytest
from rich.console import Console
from support.broker import client
from support.events import created, logged
from support.tables import connected
from support.workers import drain

from contracts.identifiers import uuid7
from worker.store.database import Database
from worker.torture import audit
from worker.torture.faults import FAULTS
from worker.torture.ground import Ground
from worker.torture.ledger import Kind, Ledger
from worker.torture.run import Options, perform
from worker.torture.show import Screen
from worker.torture.verdict import Verdict, judge

SEED = 20261122


@pytest.fixture
def ground(database_url, amqp_url, sandbox):
    """The session's services, which other tests restart: here only workers and their network are broken."""
    services = (sandbox.rabbitmq.describe(), sandbox.postgres.describe())
    return Ground(database_url, amqp_url, services)


@pytest.mark.slow
def test_a_short_torture_ends_balanced(ground, tmp_path):
    """Two workers, a fault a second for some seconds, a fixed seed: every message is accounted for."""
    said = io.StringIO()
    screen = Screen(Console(file=said, width=200))
    options = Options(seconds=6, seed=SEED, workers=2, agents=4, every=1, window=1_000)
    results = perform(options, screen, ground, [], tmp_path)
    screen.results(results)
    assert results.verdict.balanced, said.getvalue()
    assert results.faults.keys() <= {name for name, fault in FAULTS.items() if fault.on_worker}
    assert sum(results.faults.values()) > 0
    assert results.accepted > 500
    assert "is accounted for" in said.getvalue()
    assert results.as_json()["seed"] == SEED


async def verdict_of(url, ledger):
    verdict = Verdict()
    database = Database(url, name="test")
    try:
        await audit.read_tables(database, ledger, verdict)
    finally:
        await database.close()
    judge(ledger, verdict)
    return verdict


async def published_and_stored(settings, ledger, count):
    """Events of one task that went their way to the end; the ledger was told of all but the last one's confirmation."""
    task = uuid7()
    events = [
        event.model_copy(update={"id": ledger.issue()})
        for event in (created(task), *(logged(task) for _ in range(count - 1)))
    ]
    async with client(settings.broker) as agent:
        for event in events:
            ledger.note_sent(event.id)
            await agent.publish(event)
            ledger.note_accepted(event.id)
        await drain(settings)
        for outcome, items in (await agent.confirmed(count)).items():
            for item in items:
                if item["id"] != str(events[-1].id):
                    ledger.note_heard(item["id"], outcome)
    return events


async def test_the_verdict_names_what_is_wrong_in_the_tables(settings):
    """A row that went away, one that is there twice, one and a task that nobody published, one never heard of, one in the outbox."""
    ledger, foreign = Ledger(), uuid7()
    events = await published_and_stored(settings, ledger, 10)
    _, gone, twice, *_, silent = (event.id for event in events)
    again = (
        "INSERT INTO execution_logs SELECT (jsonb_populate_record(e, jsonb_build_object("
        "'log_id', $2::uuid, 'event_id', $3::uuid))).* FROM execution_logs e WHERE event_id = $1"
    )
    async with connected(settings.database) as connection:
        await connection.execute("DELETE FROM execution_logs WHERE event_id = $1", gone)
        await connection.execute(again, twice, uuid7(), foreign)
        await connection.execute(again, twice, uuid7(), twice)
        await connection.execute(
            "INSERT INTO tasks (task_id, request_text) VALUES ($1, 'nobody said so')", foreign
        )
        await connection.execute(
            "INSERT INTO outbox (id, family, payload) VALUES ($1, 'trajectory', '{}')", uuid7()
        )
    verdict = await verdict_of(settings.database, ledger)
    assert verdict.counts == Counter(lost=1, doubled=1, unexpected=2, unconfirmed=1, stuck=1)
    for sort, key in (("lost", gone), ("doubled", twice), ("unconfirmed", silent)):
        assert verdict.offenders[sort][0].startswith(str(key))
    assert all(str(foreign) in who for who in verdict.offenders["unexpected"])
    assert not verdict.balanced


async def test_the_verdict_names_dead_letters_that_should_not_be(settings):
    """A good message as a dead letter, a letter of nobody, a letter with another reason than its message's."""
    ledger = Ledger()
    good, wrong = ledger.issue(), ledger.issue(Kind.UNDECODABLE)
    for key in (good, wrong):
        ledger.note_sent(key)
        ledger.note_accepted(key)
        ledger.note_heard(str(key), "rejected" if key == wrong else "persisted")
    letter = (
        "INSERT INTO dead_letters (id, exchange, routing_key, family, reason, message_id, body) "
        "VALUES ($1, '', '', 'trajectory', 'invalid', $2, $3)"
    )
    nobody = uuid7()
    async with connected(settings.database) as connection:
        await connection.execute(letter, uuid7(), str(wrong), b"{")
        await connection.execute(letter, uuid7(), None, f'{{"id": "{good}"}}'.encode())
        await connection.execute(letter, nobody, None, b"who knows")
    verdict = await verdict_of(settings.database, ledger)
    assert verdict.counts == Counter(unexpected=3)
    named = " ".join(verdict.offenders["unexpected"])
    assert all(str(key) in named for key in (good, wrong, nobody))
