"""Attempts to handle a message alone while the database's answers are lost: none of them counts against the message."""

from support.broker import client
from support.events import logged
from support.ledger import Ledger
from support.verdicts import everything_is_accounted_for
from support.workers import drain

from worker.batch import Batcher
from worker.errors import Unavailable
from worker.store import suspects


async def test_answers_that_are_lost_make_no_dead_letter(settings, monkeypatch):
    """The beginning of an attempt is recorded, and nobody hears of it, five times: the message is stored all the same."""
    # As if every delivery had been handed out often before.
    monkeypatch.setattr(Batcher, "is_suspect", lambda _, batch: len(batch) == 1)
    monkeypatch.setattr(Batcher, "_share", lambda _, delivery: 1)
    begin = suspects.begin
    lost = []

    async def begin_unheard(*arguments):
        found = await begin(*arguments)
        if len(lost) < 5:
            lost.append(1)
            raise Unavailable("the answer was lost", ambiguous=True)
        return found

    monkeypatch.setattr(suspects, "begin", begin_unheard)
    ledger = Ledger()
    async with client(settings.broker) as agent:
        await ledger.publish(agent, [logged()])
        await drain(settings)
        await ledger.hear(agent)
    assert len(lost) == 5
    await everything_is_accounted_for(ledger, settings)
