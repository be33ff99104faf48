"""The demonstration's audit finds what does not add up: it is no rubber stamp."""

from collections import Counter

import pytest
from support.events import created, decoded, logged

from contracts.identifiers import uuid7
from worker.demo.ledger import Hearing, Ledger, audit
from worker.families import plan
from worker.store.database import Database
from worker.store.persist import Persister
from worker.store.writer import Writer


@pytest.fixture
async def database(database_url):
    database = Database(database_url, name="audit")
    yield database
    await database.close()


def books(events, *, heard=None):
    """The books of agents that published these events once, were answered, and heard of them."""
    ledger, hearing = Ledger(), Hearing()
    ledger.times = Counter(event.id for event in events)
    ledger.answers["persisted"] = len(events)
    hearing.persisted = {str(event.id) for event in (events if heard is None else heard)}
    return ledger, hearing


async def store(database, *events):
    persister = Persister(database, Writer(plan()), "task-lifecycle", "agent.replies.*")
    await persister.persist(decoded(*events))


def failing(findings):
    """The checks that do not hold, each as its number and what was found."""
    checks = enumerate(findings.checks)
    return {number: check.found for number, check in checks if not check.holds}


async def test_what_adds_up_balances(database):
    """Everything published is stored, answered and heard of."""
    task = uuid7()
    events = [created(task), logged(task), logged(task)]
    await store(database, *events)
    findings = await audit(database, *books(events))
    assert findings.balanced
    assert failing(findings) == {}
    assert findings.rows["execution_logs"] == 2
    assert findings.rows["tasks"] == 1


async def test_a_lost_message_is_found(database):
    """Answers and confirmations do not make up for a missing row."""
    task = uuid7()
    events = [created(task), logged(task)]
    await store(database, events[0])
    findings = await audit(database, *books(events))
    assert failing(findings) == {0: "1 lost, 0 twice, 0 never published"}


async def test_a_row_that_nobody_published_is_found(database):
    """What is too much is as wrong as what is missing."""
    task = uuid7()
    events = [created(task), logged(task)]
    await store(database, *events)
    findings = await audit(database, *books(events[:1]))
    assert failing(findings) == {0: "0 lost, 0 twice, 1 never published"}


async def test_a_task_that_is_known_by_name_only_is_found(database):
    """Every child has found its parent in full."""
    events = [logged(uuid7())]
    await store(database, *events)
    findings = await audit(database, *books(events))
    assert failing(findings) == {4: "1 are known by name only"}


async def test_missing_dead_letters_answers_and_confirmations_are_found(database):
    """A bad message that left no letter, an answer that never came, a confirmation that nobody heard."""
    events = [created()]
    await store(database, *events)
    ledger, hearing = books(events, heard=[])
    ledger.answers.clear()
    ledger.troubles = ["task.created was not answered: late"]
    ledger.mistakes = Counter(invalid=1)
    found = failing(await audit(database, ledger, hearing))
    assert found.keys() == {1, 2, 3}
    assert found[1] == "dead letters: {}, published: {'invalid': 1}"
    assert found[2] == "task.created was not answered: late"
