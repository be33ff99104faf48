"""The demonstration's agents and books: what they make passes its contracts, and what does not add up is found."""

import json
from collections import Counter
from datetime import UTC, datetime

import pytest
from rich.console import Console

from contracts import PersistenceConfirmed, check
from contracts.client import Publisher, Rejected, Unanswered
from contracts.confirmation import ConfirmedItem
from contracts.identifiers import uuid7
from worker.demo.agents import TRADES, Agent, out_of_order, training_job
from worker.demo.ledger import Check, Findings, Hearing, Ledger
from worker.demo.mistakes import mistakes
from worker.demo.run import _shown
from worker.demo.show import Screen
from worker.demo.traffic import Amount


def publisher():
    return Publisher("amqp://guest:guest@localhost/", source="/agents/tester")


def agent(number=0, seed=1):
    return Agent(number, publisher(), uuid7(), seed)


@pytest.mark.parametrize("number", range(len(TRADES)))
def test_every_event_of_an_agent_passes_its_contract(number):
    """Whatever happens to a task: done, failed, tried again, called off."""
    found = [event for worker in [agent(number)] for _ in range(40) for event in worker.work()]
    assert [check(event) for event in found] == [[]] * len(found)
    types = {event.type for event in found}
    assert {"task.cancelled", "task.failed", "task.retrying", "task.depends_on"} <= types


def test_what_happens_is_decided_by_the_seed():
    """Two agents with one seed tell of the same kinds of events; another seed is another story."""

    def story(seed):
        worker = agent(seed=seed)
        return [event.type for _ in range(20) for event in worker.work()]

    assert story(1) == story(1)
    assert story(1) != story(2)


def test_times_of_a_task_go_forward():
    """Each event of a task is later than the one before, and its attempt is stamped."""
    for events in (agent().work() for _ in range(20)):
        times = [event.time for event in events]
        assert times == sorted(set(times))


def test_the_training_job_passes_its_contracts():
    """Queued, started, five times progressed and saved, completed."""
    job = uuid7()
    found = training_job(publisher(), job)
    assert [check(event) for event in found] == [[]] * 13
    assert {event.data["job_id"] for event in found} == {str(job)}


def test_the_order_is_decided_by_the_seed():
    """The same seed, the same order; nothing is lost or added; the order is not the first one."""
    items = list(range(1000))
    assert out_of_order(items, 7) == out_of_order(items, 7)
    assert out_of_order(items, 7) != out_of_order(items, 8)
    assert out_of_order(items, 7) != items
    assert sorted(out_of_order(items, 7)) == items


def test_mistakes_are_wrong_in_the_way_they_say():
    """What the contracts can tell is told by them; the rest is well formed, or not JSON at all."""
    event = next(e for e in agent().work() if e.type == "execution.logged")
    found = {mistake.reason: mistake for mistake in mistakes([event])}
    assert found.keys() == {"invalid", "unknown_type", "unroutable", "undecodable", "conflict"}
    assert [e.loc for e in check(json.loads(found["invalid"].body))] == [
        ("data", "step_number"),
        ("data", "mood"),
    ]
    assert check(json.loads(found["unknown_type"].body))[0].type == "unknown_type"
    with pytest.raises(ValueError, match="Unterminated"):
        json.loads(found["undecodable"].body)
    conflict = json.loads(found["conflict"].body)
    assert check(conflict) == []
    assert conflict["id"] == str(event.id)
    assert conflict["data"] != event.data


class Answering:
    """A publisher that gives these answers, one after the other."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def persisted(self, event, **_):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_the_ledger_counts_publishes_and_answers():
    """A repetition is a publish of its own; a refusal or a missing answer is a trouble."""
    ledger = Ledger()
    events = agent().work()[:3]
    answers = Answering(
        "persisted", "persisted", Rejected("t", "i", "invalid", ()), "duplicate", Unanswered("late")
    )
    await ledger.publish_all(answers, [*events, *events[:2]])
    assert (ledger.published, len(ledger.times), ledger.repeated) == (5, 3, 2)
    assert ledger.answers == {"persisted": 2, "duplicate": 1}
    assert ledger.under_way == 0
    assert ["refused" in text for text in ledger.troubles] == [True, False]
    assert ledger.rate >= 0


def confirmation(outcome, *items):
    data = PersistenceConfirmed(
        family="execution-log",
        outcome=outcome,
        tenant="default",
        worker="w",
        committed_at=datetime.now(UTC),
        items=[ConfirmedItem(**item) for item in items],
    )
    return data.event(source="/workers/w").to_json()


def test_a_confirmation_that_comes_twice_is_heard_once():
    """Confirmations come at least once; the event's id tells a repetition."""
    hearing, ledger = Hearing(), Ledger()
    one, two = uuid7(), uuid7()
    ledger.times = Counter({one: 2, two: 1})
    ledger.mistakes = Counter(invalid=1)
    body = confirmation("persisted", {"id": str(one)}, {"id": str(two)})
    hearing.take(body)
    hearing.take(body)
    assert hearing.outcomes == {"persisted": 2}
    assert not hearing.complete(ledger)
    hearing.take(confirmation("rejected", {"id": None, "reason": "invalid"}))
    assert hearing.complete(ledger)


def told(*, holds):
    """What a person without a terminal reads at the end."""
    console = Console(record=True, width=120, force_terminal=False, quiet=False)
    ledger = Ledger()
    ledger.times = Counter({uuid7(): 1})
    ledger.published = 2
    checks = (Check("each is there", holds, "1 lost"),)
    findings = Findings({"tasks": 1, "lifecycle_events": 1}, Counter(invalid=1), checks)
    with console.capture() as captured:
        Screen(console).results(ledger, Hearing(), findings)
    return captured.get()


def test_the_verdict_is_a_sentence():
    """All well: the sum is told. Not well: what failed, and what was found."""
    good = told(holds=True)
    assert "Every message is accounted for: 2 published = 1 stored + 0 repetitions + 1 dead" in good
    assert "it breaks the envelope's rules" in good
    bad = told(holds=False)
    assert "NO   each is there (1 lost)" in bad
    assert "accounted for:" not in bad


def test_passwords_of_servers_that_are_not_ours_are_not_shown():
    """A sandbox in a given server has that server's password in its URL."""
    url = "amqp://me:p%40ss@host:5672/sandbox"
    assert _shown(url, ours=False) == "amqp://me:***@host:5672/sandbox"
    assert _shown(url, ours=True) == url


def test_an_amount_tells_what_is_published():
    """As a person would say it."""
    assert str(Amount(1, 2.5)) == "1 agent publishes for 2.5 seconds"
    assert (
        str(Amount(3, 1, tuple(agent().work())[:2])) == "3 agents publish 2 events of recorded runs"
    )
