"""What nobody can read, route or store, among good messages: each bad one a letter, each good one stored, at first delivery."""

import gzip
import json
import random

from support.broker import client
from support.events import created, logged
from support.hostile import HOSTILE, publish_hostile
from support.ledger import Ledger
from support.tables import rows
from support.workers import drain, running_worker

from contracts.identifiers import uuid7
from worker.broker.connection import connect

KEY = "execution.logged"


def body(**changes: object) -> bytes:
    event = json.loads(logged().to_json())
    event["data"].update(changes)
    return json.dumps(event).encode()


def spliced(text: bytes) -> bytes:
    """A log entry whose output_full is these bytes, whatever they are."""
    return body(output_full="@@").replace(b'"@@"', text)


UNDECODABLE = [
    b"\xef\xbb\xbf" + body(),
    b"",
    body()[:-1],
    body(action="A").replace(b'"A"', b'"\xff"'),
    spliced(b'"\\ud800"'),
    spliced(b"NaN"),
    spliced(b"-Infinity"),
    spliced(b"1e400"),
    spliced(b"18446744073709551616"),
    spliced(b"[" * 10_000 + b"]" * 10_000),
    spliced(b"[" * 65 + b"]" * 65),
]
INVALID = [
    body().replace(b'"time": "2', b'"time": "1000002'),
    body(step_number=2**31),
    body(surprise=1),
    b"42",
    b"{}",
]
NUL = "\x00"


def with_nul() -> list[dict]:
    """Good messages with a NUL character wherever a text may stand: PostgreSQL would refuse each of them."""
    envelope = json.loads(logged().to_json())
    return [
        *(
            envelope | {"id": str(uuid7()), place: f"/a{NUL}b", "data": logged().data}
            for place in ("source", "subject", "extension")
        ),
        *(json.loads(body(**{name: f"a{NUL}b"})) for name in ("action", "output_summary")),
        json.loads(body(output_full={f"k{NUL}": [NUL, {"": NUL * 3}]})),
    ]


async def test_what_cannot_be_read_costs_no_neighbour_anything(settings):
    """Item by item of the torture list, between good messages, over two workers, in bodies of one and in batches."""
    ledger = Ledger()
    small = settings.model_copy(update={"batch_messages": 9})
    bad = [(one, "undecodable") for one in UNDECODABLE] + [(one, "invalid") for one in INVALID]
    random.shuffle(bad)
    async with client(settings.broker) as agent:
        for one, reason in bad:
            await ledger.publish(agent, [logged(), created()])
            await ledger.publish_bad(agent, one, reason, KEY)
        bomb = gzip.compress(b" " * (32 * 1024 * 1024))
        await ledger.publish_bad(agent, bomb, "undecodable", KEY, content_encoding="gzip")
        for event in with_nul():
            await agent.publish(json.dumps(event).encode())
            ledger.published.append(logged().model_copy(update={"id": event["id"]}))
        twice = (
            logged(action="twice")
            .to_json()
            .replace(b'"step_number":1', b'"step_number":7,"step_number":9')
        )
        await agent.publish(twice)
        ledger.published.append(logged().model_copy(update={"id": json.loads(twice)["id"]}))
        await ledger.publish_batch(agent, [logged() for _ in range(20)], KEY)
        async with running_worker(small), running_worker(small):
            await ledger.hear(agent)
    await drain(settings)
    await ledger.balance(settings.database)
    assert await rows(settings.database, "SELECT 1 FROM dead_letters WHERE seen <> 1") == []
    [kept] = await rows(
        settings.database, "SELECT step_number FROM execution_logs WHERE action = 'twice'"
    )
    assert kept == {"step_number": 9}


async def test_hostile_properties_and_keys_that_nobody_takes_end_as_letters(settings):
    """What client libraries die on, and what no queue is bound for: a hundred neighbours land at their first delivery."""
    ledger = Ledger()
    async with client(settings.broker) as agent:
        connection = await connect(settings.broker, name="hostile")
        for flags, properties in HOSTILE.values():
            await ledger.publish(agent, [logged() for _ in range(10)])
            one = body()
            assert await publish_hostile(connection, KEY, flags, properties, one)
            ledger.expect_letter(one, "undecodable")
            lost = body()
            assert await publish_hostile(connection, "no.such.family", flags, properties, lost)
            ledger.expect_letter(lost, "unroutable")
        await connection.close()
        for key in ("excution.logged", "", "tasks", "x" * 255, "nul\0key"):
            await ledger.publish_bad(agent, body(), "unroutable", key)
        await ledger.publish(agent, [logged() for _ in range(30)])
        async with running_worker(settings):
            await ledger.hear(agent)
    await ledger.balance(settings.database)
    assert await rows(settings.database, "SELECT 1 FROM dead_letters WHERE seen <> 1") == []


async def test_headers_of_the_broker_that_a_publisher_makes_up_count_for_nothing(settings):
    """A forged x-death, x-delivery-count or x-dead-letter-id makes no suspect, no letter and no resolution."""
    forged = {
        "x-delivery-count": 1_000,
        "x-death": [{"count": 1_000, "reason": "delivery_limit", "queue": "worker.execution-log"}],
        "x-first-death-reason": "delivery_limit",
        "x-dead-letter-id": "00000000-0000-0000-0000-000000000000",
    }
    ledger = Ledger()
    async with client(settings.broker) as agent, running_worker(settings):
        await ledger.publish(agent, [logged() for _ in range(30)], headers=forged)
        await ledger.publish(agent, [created() for _ in range(30)], headers=forged)
        await ledger.hear(agent)
    await ledger.balance(settings.database)
    assert await rows(settings.database, "SELECT 1 FROM suspects") == []
