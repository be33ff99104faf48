"""The torture's books and its choice of faults: what does not add up is named, and a seed repeats a run's faults."""

import random
from collections import Counter
from itertools import islice

import pytest
from support.events import delivery, logged

from contracts.identifiers import uuid7
from contracts.registry import contract_types, families
from worker.decode import Decoder
from worker.message import Message, Properties, Rejected
from worker.torture import mistakes
from worker.torture.faults import FAULTS, draw
from worker.torture.ledger import LETTER, ROW, Kind, Ledger
from worker.torture.verdict import Verdict, judge


def told(ledger, kind=Kind.GOOD, *, found=None, asked=False):
    """A message that went its way to the end, or to what is found of it."""
    key = ledger.issue(kind)
    ledger.note_sent(key, asked=asked)
    ledger.note_accepted(key)
    ledger.note_heard(str(key), "rejected" if kind.bad else "persisted")
    end = (LETTER if kind.bad else ROW) if found is None else found
    for bit in (ROW, LETTER):
        if end & bit:
            ledger.add(ledger.number_of(key), bit)
    return key


def judged(ledger):
    verdict = Verdict()
    judge(ledger, verdict)
    return verdict


def test_an_id_is_found_again_and_a_foreign_one_is_not():
    """An entry's number is in its id; ids of another run, of nobody and of no form are none of ours."""
    ledger, other = Ledger(), Ledger()
    keys = [ledger.issue() for _ in range(1000)]
    assert [ledger.number_of(key) for key in keys] == list(range(1000))
    assert {key.version for key in keys} == {7}
    assert [key.int >> 80 for key in keys] == sorted(key.int >> 80 for key in keys)
    foreign = [other.issue(), uuid7(), ledger.id_of(999).__class__(int=keys[0].int ^ 1 << 100)]
    assert [ledger.number_of(key) for key in foreign] == [None] * 3
    assert [ledger.find(text) for text in (None, "", "nonsense", str(keys[7]))] == [None] * 3 + [7]
    with pytest.raises(ValueError, match="not issued"):
        ledger.note_sent(uuid7())


def test_what_went_its_way_to_the_end_balances():
    """Good ones in a row, bad ones in a dead letter, pairs as they must, and what was never sent nowhere."""
    ledger = Ledger()
    for kind in (Kind.GOOD, Kind.INVALID, Kind.UNROUTABLE, Kind.CONFLICT, Kind.UNDECODABLE):
        told(ledger, kind)
    told(ledger, Kind.TWIN)
    told(ledger, Kind.TWIN, found=0)
    told(ledger, Kind.RIVAL)
    told(ledger, Kind.RIVAL, found=LETTER)
    told(ledger, Kind.HOSTILE)
    ledger.issue()
    assert judged(ledger).balanced
    assert ledger.under_way == 3 + 1 + 2  # those kinds that only a reply ends


@pytest.mark.parametrize(
    ("kind", "found", "sort"),
    [
        (Kind.GOOD, 0, "lost"),
        (Kind.GOOD, LETTER, "unexpected"),
        (Kind.GOOD, ROW | LETTER, "doubled"),
        (Kind.INVALID, 0, "lost"),
        (Kind.INVALID, ROW, "unexpected"),
        (Kind.CONFLICT, ROW | LETTER, "doubled"),
    ],
)
def test_what_does_not_add_up_is_named(kind, found, sort):
    """One offender among many that are as they should be: its sort, its id, and nothing else."""
    ledger = Ledger()
    for _ in range(100):
        told(ledger, kind)
    key = told(ledger, kind, found=found)
    verdict = judged(ledger)
    assert verdict.counts == Counter({sort: 1})
    assert verdict.offenders[sort][0].startswith(str(key))


@pytest.mark.parametrize(
    ("kind", "ends", "sort"),
    [
        (Kind.TWIN, (0, 0), "lost"),
        (Kind.TWIN, (ROW, ROW), "doubled"),
        (Kind.TWIN, (ROW, LETTER), "unexpected"),
        (Kind.RIVAL, (0, LETTER), "lost"),
        (Kind.RIVAL, (ROW, 0), "lost"),
        (Kind.RIVAL, (ROW | LETTER, LETTER), "doubled"),
    ],
)
def test_pairs_are_judged_together(kind, ends, sort):
    """A pair that ended otherwise than one row (and, of rivals, one dead letter) is named by its first."""
    ledger = Ledger()
    told(ledger)
    first, _ = [told(ledger, kind, found=end) for end in ends]
    verdict = judged(ledger)
    assert verdict.counts == Counter({sort: 1})
    assert verdict.offenders[sort][0].startswith(str(first))


def test_a_confirmation_or_reply_that_never_came_is_named():
    """Heard on the exchange, and answered where a reply was asked for; a wrong outcome does not count as heard."""
    ledger = Ledger()
    silent, unanswered, refused = (ledger.issue() for _ in range(3))
    for key in (silent, unanswered, refused):
        ledger.note_sent(key, asked=key == unanswered)
        ledger.note_accepted(key)
        ledger.add(ledger.number_of(key), ROW)
    ledger.note_heard(str(unanswered), "duplicate")
    ledger.note_heard(str(refused), "rejected")
    verdict = judged(ledger)
    assert verdict.counts == Counter({"unconfirmed": 3})
    named = " ".join(verdict.offenders["unconfirmed"])
    assert all(str(key) in named for key in (silent, unanswered, refused))
    assert "no reply" in named


def test_a_rejection_that_names_nobody_is_counted():
    """Of bodies that nobody can read, as many rejections must be heard as were published."""
    ledger = Ledger()
    for _ in range(2):
        key = ledger.issue(Kind.HOSTILE)
        ledger.note_sent(key)
        ledger.note_accepted(key)
        ledger.add(ledger.number_of(key), LETTER)
    ledger.note_heard(None, "rejected")
    assert judged(ledger).counts == Counter({"unconfirmed": 1})
    ledger.note_heard(None, "rejected")
    assert judged(ledger).balanced


def test_what_the_broker_never_confirmed_may_be_there_or_not():
    """A publisher that gave up knows nothing; but what nobody sent must not be there."""
    ledger = Ledger()
    for found in (0, ROW):
        key = ledger.issue()
        ledger.note_sent(key)
        ledger.note_heard(str(key) if found else None, "persisted")
        ledger.states[ledger.number_of(key)] |= found
    assert judged(ledger).balanced
    ledger.add(ledger.number_of(ledger.issue()), ROW)
    assert judged(ledger).counts == Counter({"unexpected": 1})


def test_a_million_messages_take_a_few_bytes_each():
    """The books of an hour fit into memory, and only the first offenders are named."""
    ledger = Ledger()
    ledger.states = bytearray([1 | 2]) * 1_000_000
    ledger.kinds = bytearray(1_000_000)
    ledger._offsets = ledger._offsets.__class__("I", bytes(4_000_000))
    verdict = judged(ledger)
    assert verdict.counts == Counter({"lost": 1_000_000, "unconfirmed": 1_000_000})
    assert len(verdict.offenders["lost"]) == 20


def test_every_mistake_is_refused_for_the_reason_it_is_counted_under():
    """Dozens of each, decoded as a worker does; conflicts and unroutable ones are right in themselves."""
    ledger = Ledger()
    chance = random.Random(1)
    stored = logged()
    decoders = {name: Decoder(family) for name, family in families().items()}
    reasons: Counter[str] = Counter()
    for _ in range(60):
        for parcel in mistakes.mistakes(ledger, stored, chance):
            kind = Kind(ledger.kinds[ledger.number_of(parcel.keys[0])])
            if kind is Kind.HOSTILE:
                continue
            known = contract_types().get(parcel.routing_key)
            family = known[0].name if known else "execution-log"
            came = Properties(content_encoding=parcel.content_encoding)
            [item] = decoders[family].decode(delivery(parcel.body, properties=came))
            if kind is Kind.CONFLICT:
                assert isinstance(item, Message)
                assert item.key == (stored.data["log_id"],) or item.key_text in str(stored.data)
                continue
            assert isinstance(item, Rejected), parcel
            if kind is not Kind.UNROUTABLE:
                assert item.reason == kind.reason, parcel
            reasons[kind.reason] += 1
    assert reasons == dict.fromkeys(("invalid", "unknown_type", "unroutable", "undecodable"), 60)


def test_rivals_have_one_id_and_twins_have_one_key():
    """Rivals differ in what they say under a new key; twins say the same under two ids."""
    ledger = Ledger()
    event = logged()
    decode = Decoder(families()["execution-log"]).decode
    rivals = [decode(delivery(parcel.body))[0] for parcel in mistakes.rivals(ledger, event)]
    assert len({item.id for item in rivals}) == len({item.key for item in rivals}) == 1
    assert len({item.digest for item in rivals}) == 2
    assert rivals[0].key_text != event.data["log_id"]
    twins = [decode(delivery(one.to_json()))[0] for one in mistakes.twins(ledger, event)]
    assert len({item.id for item in twins}) == 2
    assert len({(item.key, item.digest) for item in twins}) == 1


def test_a_seed_repeats_the_choice_of_faults():
    """The same for one seed and victim, whatever the order of the choice; another seed is another choice."""

    def drawn(seed, faults):
        strikes = islice(draw(seed, faults, 5), 50)
        return [(strike.fault.name, strike.pause, strike.seconds) for strike in strikes]

    everything = list(FAULTS.values())
    assert drawn("1 a", everything) == drawn("1 a", everything[::-1])
    assert drawn("1 a", everything) != drawn("1 b", everything)
    assert not list(draw("1 a", [], 5))
    assert all(0 < pause < 10 for _, pause, _ in drawn("2", everything))
