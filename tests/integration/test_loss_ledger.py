"""The loss ledger against a real database: what a batch adds to it, what folding keeps, and what the look says."""

import asyncio
import random
from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.events import created, decoded, delivery, logged
from support.tables import connected, count, rows

from contracts.identifiers import uuid7
from worker import families, ledger_watch, telemetry
from worker.decode import Decoder
from worker.errors import Unavailable
from worker.store import loss_ledger
from worker.store.database import Database
from worker.store.persist import Persister
from worker.store.ranges import fold, literal
from worker.store.reconciliation import Chosen, Epoch, letters_without_number, look
from worker.store.writer import Writer

SOURCE = "/agents/tester"
EPOCH = uuid7()
OURS = Epoch("default", SOURCE, EPOCH)


def numbered(event, sequence, epoch=EPOCH):
    return event.model_copy(update={"sequence": str(sequence), "epoch": epoch})


@pytest.fixture
async def database(database_url):
    database = Database(database_url, name="test")
    yield database
    await database.close()


@pytest.fixture
def persister(database):
    return Persister(database, Writer(families.plan()), "task-lifecycle", "agent.replies.*")


async def accounts(database, chosen=None, most_ranges=100):
    found = [one async for one in look(database, chosen or Chosen(), most_ranges=most_ranges)]
    return {one.key: one for one in found}


async def account(database, chosen=None):
    """What is told of the one epoch that there is."""
    (only,) = (await accounts(database, chosen)).values()
    return only


async def contents(url):
    """The rows as text, whatever their order."""
    found = await rows(
        url,
        "SELECT tenant_id, source, epoch, persisted::text, doubled::text, duplicate::text, rejected::text FROM loss_ledger",
    )
    return sorted(tuple(map(str, row.values())) for row in found)


async def test_a_batch_adds_one_row_for_each_tenant_source_and_epoch(database_url, persister):
    """With ranges of what it stored; events without a number add nothing, nor does one without an epoch."""
    epochs = EPOCH, uuid7()
    batch = [numbered(logged(), at) for at in (3, 1, 2, 7)]
    batch += [numbered(logged(), 1, epochs[1]), numbered(logged(tenant="acme"), 5)]
    batch += [numbered(logged(source="/b"), 9), logged(), numbered(created(), 8)]
    batch += [logged().model_copy(update={"sequence": "4"})]
    await persister.persist(decoded(*batch))
    assert await contents(database_url) == sorted(
        [
            ("default", SOURCE, str(EPOCH), "{[1,4),[7,9)}", "{}", "{}", "{}"),
            ("default", SOURCE, str(epochs[1]), "{[1,2)}", "{}", "{}", "{}"),
            ("acme", SOURCE, str(EPOCH), "{[5,6)}", "{}", "{}", "{}"),
            ("default", "/b", str(EPOCH), "{[9,10)}", "{}", "{}", "{}"),
        ]
    )


async def test_events_without_numbers_cost_nothing(database_url, persister):
    """No row, and no statement."""
    await persister.persist(decoded(logged(), created()))
    assert await count(database_url, "loss_ledger") == 0


async def test_what_is_rolled_back_leaves_nothing(database_url, persister, monkeypatch):
    """The row is part of the batch's transaction, and comes with the attempt that commits."""

    def fail(_point):
        raise Unavailable("the connection is gone")

    batch = decoded(numbered(logged(), 1))
    with monkeypatch.context() as patch:
        patch.setattr("worker.store.persist.reached", fail)
        with pytest.raises(Unavailable):
            await persister.persist(batch)
    assert await count(database_url, "loss_ledger") == 0
    await persister.persist(batch)
    assert [row[3] for row in await contents(database_url)] == ["{[1,2)}"]


async def test_a_redelivery_is_no_double(database, persister):
    """A stored message that comes again, redelivered or published again, is there once, as it was."""
    event = numbered(logged(), 1)
    await persister.persist(decoded(event))
    await persister.persist(decoded(event, redelivered=True))
    await persister.persist(decoded(event, event))
    told = await account(database)
    assert (told.last, told.missing.count, told.doubled.count) == (1, 0, 0)


async def test_a_duplicate_under_a_new_number_is_not_missing(database, persister):
    """An agent that starts again and publishes what it published before has a new epoch; nothing of it is lost."""
    event = logged()
    await persister.persist(decoded(numbered(event, 1)))
    again = uuid7()
    await persister.persist(decoded(numbered(event, 1, again), numbered(logged(), 2, again)))
    assert all(one.missing.count == 0 for one in (await accounts(database)).values())


async def test_gaps_are_named_and_the_end_too_where_it_is_known(database, persister):
    """What lies between is missing; what lies behind is, if somebody knows that it was published."""
    await persister.persist(decoded(*(numbered(logged(), at) for at in (2, 3, 6))))
    told = await account(database)
    assert (told.missing.count, told.missing.ranges) == (3, ((1, 1), (4, 5)))
    told = await account(database, Chosen(upto={OURS: 10}))
    assert told.missing.ranges == ((1, 1), (4, 5), (7, 10))
    told = await account(database, Chosen(upto={OURS: 5}))
    assert (told.last, told.missing.ranges) == (6, ((1, 1), (4, 5)))
    told = await account(database, Chosen(upto={OURS: 4}, no_further=True))
    assert (told.last, told.missing.ranges) == (4, ((1, 1), (4, 4)))


async def test_an_epoch_of_which_nothing_came_is_missing_as_a_whole(database):
    """Nobody but its publisher can know of it."""
    told = await account(database, Chosen(upto={OURS: 3}))
    assert (told.missing.ranges, told.recorded_at) == (((1, 3),), None)
    assert await accounts(database) == {}


async def test_a_number_that_was_stored_under_two_keys_is_doubled(
    database, database_url, persister
):
    """In one batch or in two, before and after folding."""
    await persister.persist(decoded(*(numbered(logged(), at) for at in (1, 2, 2, 3))))
    assert (await account(database)).doubled.ranges == ((2, 2),)
    await persister.persist(decoded(*(numbered(logged(), at) for at in (3, 4))))
    await persister.persist(decoded(numbered(logged(), 5)))
    for _ in range(3):
        told = await account(database)
        assert (told.doubled.ranges, told.doubled.count, told.missing.count) == (((2, 3),), 2, 0)
        await loss_ledger.compact(database)
    assert await count(database_url, "loss_ledger") == 1
    await persister.persist(decoded(numbered(logged(), 1)))
    assert (await account(database)).doubled.ranges == ((1, 3),)


async def resolve(url, resolution):
    async with connected(url) as connection:
        await connection.execute(
            "UPDATE dead_letters SET resolved_at = now(), resolution = $1", resolution
        )


async def test_rejected_events_are_in_dead_letters_until_somebody_resolves_them(
    database, database_url, persister
):
    """Open, then discarded, then gone; edited and stored without its number counts as stored."""
    bad = numbered(logged(), 1).model_copy(update={"data": {}})
    await persister.persist(decoded(bad, numbered(logged(), 2)))
    told = await account(database)
    assert (told.dead_letters.ranges, told.missing.count, told.discarded.count) == (((1, 1),), 0, 0)
    await resolve(database_url, "edited")
    told = await account(database)
    assert (told.dead_letters.count, told.missing.count, told.discarded.count) == (0, 0, 0)
    await resolve(database_url, "discarded")
    assert (await account(database)).discarded.ranges == ((1, 1),)
    async with connected(database_url) as connection:
        await connection.execute("DELETE FROM dead_letters")
    told = await account(database)
    assert (told.discarded.ranges, told.missing.count) == (((1, 1),), 0)


async def test_a_whole_batch_in_a_dead_letter_keeps_all_its_numbers(database, persister):
    """Unroutable as one message; its events are known all the same, whatever their sources."""
    from worker.undelivered import unroutable

    events = [numbered(logged(), at) for at in (1, 2, 5)] + [numbered(logged(source="/b"), 1)]
    body = b"[" + b",".join(event.to_json() for event in events) + b",{},7]"
    await persister.persist(unroutable(delivery(body)))
    told = await accounts(database)
    assert told[OURS].dead_letters.ranges == ((1, 2), (5, 5))
    assert told[OURS].missing.ranges == ((3, 4),)
    assert told[OURS._replace(source="/b")].dead_letters.ranges == ((1, 1),)
    assert await letters_without_number(database) == 0


async def test_a_letter_without_a_number_is_counted(database, persister):
    """What is missing may be in it."""
    await persister.persist(
        Decoder(families.families()["execution-log"].contract).decode(delivery(b"{"))
    )
    assert await letters_without_number(database) == 1


@pytest.mark.parametrize(
    "sequence",
    [
        "999999999999999999999",
        "9223372036854775807",
        "1000000000000000000",
        "0",
        "-1",
        "1e3",
        "",
        5,
        "\u0661",
    ],
)
async def test_an_absurd_sequence_is_invalid_and_recorded_nowhere(
    database_url, persister, sequence
):
    """It becomes a dead letter of the contract's making, and no neighbour suffers."""
    event = logged().model_dump(mode="json", exclude_none=True) | {
        "sequence": sequence, "epoch": str(EPOCH)
    }  # fmt: skip
    import orjson

    contract = families.families()["execution-log"].contract
    bad = Decoder(contract).decode(delivery(orjson.dumps(event), family="execution-log"))
    assert [one.reason for one in bad] == ["invalid"]
    await persister.persist([*bad, *decoded(numbered(logged(), "9" * 18))])
    assert [row[3:] for row in await contents(database_url)] == [
        ("{[999999999999999999,1000000000000000000)}", "{}", "{}", "{}")
    ]


async def test_the_longest_source_is_kept_whole(database, persister):
    """No index has to hold it; two that begin alike stay two."""
    longest = ["/" + "\N{GRINNING FACE}" * 1022 + end for end in "ab"]
    await persister.persist(decoded(*(numbered(logged(source=one), 2) for one in longest)))
    assert {key.source: one.missing.count for key, one in (await accounts(database)).items()} == (
        dict.fromkeys(longest, 1)
    )
    await loss_ledger.compact(database)


async def test_epochs_are_chosen_by_tenant_source_epoch_and_time(database, persister):
    """Any of them, together."""
    other = uuid7()
    await persister.persist(
        decoded(
            numbered(logged(), 1), numbered(logged(tenant="acme"), 1), numbered(logged(source="/b"), 1, other)
        )
    )  # fmt: skip
    now = (
        await rows(str(database.engine.url.render_as_string(hide_password=False)), "SELECT now()")
    )[0]["now"]
    for chosen, expected in (
        (Chosen(), 3),
        (Chosen(tenant="acme"), 1),
        (Chosen(source=SOURCE), 2),
        (Chosen(epoch=other), 1),
        (Chosen(tenant="acme", epoch=other), 0),
        (Chosen(since=now), 0),
        (Chosen(upto={OURS: 1}), 1),
    ):
        assert len(await accounts(database, chosen)) == expected, chosen


async def test_a_source_with_many_gaps_is_told_in_few_words(database, persister):
    """The count is exact; the ranges are as many as were asked for."""
    await persister.persist(decoded(*(numbered(logged(), at) for at in range(2, 102, 2))))
    (told,) = (await accounts(database, most_ranges=3)).values()
    assert (told.missing.count, told.missing.ranges) == (50, ((1, 1), (3, 3), (5, 5)))
    assert told.missing.ranges_left_out == 47


async def test_the_gauges_count_what_was_missing_at_two_looks(database, persister):
    """What is on its way at one look is there by the next; what is doubled counts at once."""
    gauges = telemetry.ledger_missing._value, telemetry.ledger_doubled._value

    async def look_once(late):
        late = await ledger_watch.look_once(database, late)
        return late, tuple(gauge.get() for gauge in gauges)

    await persister.persist(decoded(*(numbered(logged(), at) for at in (1, 4, 4))))
    late, told = await look_once({})
    assert told == (0, 1)
    await persister.persist(decoded(numbered(logged(), 2), numbered(logged(), 9)))
    late, told = await look_once(late)
    assert told == (1, 1)
    await persister.persist(decoded(*(numbered(logged(), at) for at in (3, 5, 6, 7, 8))))
    late, told = await look_once(late)
    assert (late, told) == ({}, (0, 1))


async def test_the_watch_outlives_an_outage(database, persister, monkeypatch):
    """It looks again when its time comes."""
    await persister.persist(decoded(numbered(logged(), 2)))
    answers = [Unavailable("away"), None, None]
    looked = asyncio.Event()
    real = ledger_watch.look_once

    async def look_once(*arguments):
        if answers and (answer := answers.pop(0)):
            raise answer
        found = await real(*arguments)
        if not answers:
            looked.set()
        return found

    monkeypatch.setattr(ledger_watch, "look_once", look_once)
    watching = asyncio.create_task(ledger_watch.watch(database, every=0.01))
    async with asyncio.timeout(30):
        await looked.wait()
    watching.cancel()
    assert telemetry.ledger_missing._value.get() == 1


async def insert(connection, epoch, *, persisted=(), duplicate=(), rejected=()):
    once, again = fold(persisted)
    await connection.execute(
        "INSERT INTO loss_ledger (epoch, source, persisted, doubled, duplicate, rejected) VALUES ($1, $2,"
        " $3::text::int8multirange, $4::text::int8multirange, $5::text::int8multirange, $6::text::int8multirange)",
        *(epoch, SOURCE, literal(once), literal(again)),
        *(literal(fold(some)[0]) for some in (duplicate, rejected)),
    )


some_numbers = st.lists(st.integers(1, 25), max_size=12)
some_rows = st.lists(st.tuples(some_numbers, some_numbers, some_numbers), min_size=1, max_size=8)


async def test_looking_and_folding_agree_with_plain_sets(database, database_url):
    """Whatever rows there are, folded or not, in one step or in many: missing and doubled are what sets say."""

    async def check(some, at_once):
        epoch = uuid7()
        async with connected(database_url) as connection:
            for persisted, duplicate, rejected in some:
                await insert(
                    connection, epoch, persisted=persisted, duplicate=duplicate, rejected=rejected
                )
        persisted = Counter(number for row in some for number in row[0])
        duplicate, rejected = ({n for row in some for n in row[at]} for at in (1, 2))
        used = set(persisted) | duplicate | rejected
        expected = (
            set(range(1, max(used, default=0) + 1)) - used,
            {number for number, times in persisted.items() if times > 1},
            rejected - set(persisted) - duplicate,
        )
        key = Epoch("default", SOURCE, epoch)
        for _ in range(2):
            told = (await accounts(database, Chosen(epoch=epoch)))[key]
            assert tuple(
                {n for one in kind.ranges for n in range(one.first, one.last + 1)}
                for kind in (told.missing, told.doubled, told.discarded)
            ) == expected  # fmt: skip
            await loss_ledger.compact(database, rows_at_once=at_once)
        assert await count(database_url, f"loss_ledger WHERE epoch = '{epoch}'") == 1

    loop = asyncio.get_running_loop()

    @hypothesis_settings(max_examples=25)
    @given(some_rows, st.integers(2, 5))
    def check_all(some, at_once):
        asyncio.run_coroutine_threadsafe(check(some, at_once), loop).result(60)

    await asyncio.to_thread(check_all)


async def test_folding_beside_writers_loses_nothing(database, database_url):
    """Two who fold while three write and one looks: nothing is ever missing, and in the end there is one row."""
    done = asyncio.Event()
    turns = iter(range(10_000))
    numbers = [list(range(at, at + 5)) for at in range(1, 1501, 5)]
    random.shuffle(numbers)

    async def write():
        async with connected(database_url) as connection:
            while numbers:
                await insert(connection, EPOCH, persisted=numbers.pop())

    async def fold_on():
        while not done.is_set():
            await loss_ledger.compact(database, rows_at_once=20)

    async def look_on():
        seen = 0
        while not done.is_set():
            for one in (await accounts(database)).values():
                assert one.doubled.count == 0
                stored = one.last - one.missing.count
                assert stored >= seen
                seen = stored
            next(turns)

    async with asyncio.TaskGroup() as tasks:
        others = [tasks.create_task(one()) for one in (fold_on, fold_on, look_on)]
        await asyncio.gather(*(write() for _ in range(3)))
        done.set()
        await asyncio.gather(*others)
    assert next(turns) > 0
    await loss_ledger.compact(database)
    [row] = await rows(
        database_url, "SELECT persisted::text AS p, doubled::text AS d FROM loss_ledger"
    )
    assert (row["p"], row["d"]) == ("{[1,1501)}", "{}")
    async with database.transaction() as connection:
        assert await loss_ledger.foldable(connection) == 0


async def test_many_epochs_are_folded_in_steps(database, database_url):
    """More groups than one step takes; rows are counted; a second run finds nothing to do."""
    async with connected(database_url) as connection:
        await connection.execute(
            "INSERT INTO loss_ledger (epoch, source, persisted) SELECT md5(e::text)::uuid, $1, "
            "int8multirange(int8range(n, n + 1)) FROM generate_series(1, 700) e, generate_series(1, 3) n",
            SOURCE,
        )
    assert await loss_ledger.compact(database, rows_at_once=400) == 1400
    assert await loss_ledger.compact(database) == 0
    found = await accounts(database)
    assert len(found) == 700
    assert {(one.last, one.missing.count) for one in found.values()} == {(3, 0)}
    assert all(isinstance(key.epoch, UUID) for key in found)
