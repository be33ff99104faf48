"""What nobody can store becomes a dead letter with its whole body; what is beside it lands."""

import gzip
import json
import zlib

import zstandard
from support.broker import client
from support.events import logged
from support.hostile import HOSTILE, publish_hostile
from support.queues import length
from support.tables import count, rows
from support.workers import drain

from worker.broker.connection import connect


def log_json(**changes) -> dict:
    event = json.loads(logged().to_json())
    event["data"].update(changes)
    return event


def body(**changes) -> bytes:
    return json.dumps(log_json(**changes)).encode()


def spliced(text: bytes) -> bytes:
    """A log entry whose output_full is these bytes, whatever they are."""
    return body(output_full="@@").replace(b'"@@"', text)


UNDECODABLE = {
    "a byte order mark": b"\xef\xbb\xbf" + body(),
    "an empty body": b"",
    "no JSON at all": b"hello",
    "a body cut short": body()[:-2],
    "invalid UTF-8": body(action="A").replace(b'"A"', b'"\xff"'),
    "a lone surrogate": spliced(b'"\\ud800"'),
    "a lone surrogate as a member's name": spliced(b'{"\\udfff": 1}'),
    "NaN": spliced(b"NaN"),
    "Infinity": spliced(b"-Infinity"),
    "1e400": spliced(b"1e400"),
    "an integer past 64 bits": spliced(b"18446744073709551616"),
    "a negative integer past 64 bits": spliced(b"-9223372036854775809"),
    "an integer of 5,000 digits": spliced(b"9" * 5000),
    "depth 10,000": spliced(b"[" * 10_000 + b"]" * 10_000),
    "depth 100": spliced(b"[" * 100 + b"]" * 100),
    "depth 300 behind a number past 64 bits": spliced(b"[" * 300 + b"1" * 30 + b"]" * 300),
    "more than 500,000 values": spliced(b"[" + b"[]," * 500_000 + b"[]]"),
    "more than 8 MiB": spliced(b'"' + b"x" * (8 * 1024 * 1024) + b'"'),
    "an empty batch": b"[]",
    "a batch of 10,001 events": b"[" + b",".join([b"1"] * 10_001) + b"]",
}


async def letters_by_body(settings) -> dict[bytes, dict]:
    found = await rows(settings.database, "SELECT * FROM dead_letters")
    return {letter["body"]: letter for letter in found}


async def test_bodies_that_are_no_json_of_the_wire_are_undecodable_and_kept_whole(settings):
    """Each bad body is a dead letter with its bytes as they came; the good ones beside them are stored."""
    async with client(settings.broker) as agent:
        for bad in UNDECODABLE.values():
            await agent.publish(logged(), bad)
        await drain(settings)
        confirmed = await agent.confirmed(2 * len(UNDECODABLE))
    assert len(confirmed["persisted"]) == len(UNDECODABLE)
    assert {item["reason"] for item in confirmed["rejected"]} == {"undecodable"}
    letters = await letters_by_body(settings)
    for case, bad in UNDECODABLE.items():
        assert bad in letters, f"{case}: no letter holds the whole body"
        assert letters[bad]["reason"] == "undecodable", case
        assert letters[bad]["errors"] != "[]", case
    assert await count(settings.database, "execution_logs") == len(UNDECODABLE)


ENCODED = {
    "a gzip bomb": ("gzip", gzip.compress(b" " * (64 * 1024 * 1024))),
    "a zstd bomb": ("zstd", zstandard.compress(b" " * (64 * 1024 * 1024))),
    "gzip cut short": ("gzip", gzip.compress(body())[:-9]),
    "zstd cut short": ("zstd", zstandard.compress(body())[:-3]),
    "no gzip": ("gzip", body()),
    "no zstd": ("zstd", body()),
    "an unknown encoding": ("br", body()),
}


async def test_bad_content_encodings_are_undecodable(settings):
    """A bomb, a cut stream and an unknown encoding are dead letters that hold the compressed bytes."""
    async with client(settings.broker) as agent:
        for encoding, bad in ENCODED.values():
            await agent.publish(logged())
            await agent.publish(bad, content_encoding=encoding)
        await drain(settings)
        confirmed = await agent.confirmed(2 * len(ENCODED))
    assert len(confirmed["persisted"]) == len(ENCODED)
    letters = await letters_by_body(settings)
    for case, (_, bad) in ENCODED.items():
        assert letters[bad]["reason"] == "undecodable", case


async def test_compressed_bodies_are_stored_as_if_they_were_not(settings):
    """gzip (of several members, too), zstd and identity are content encodings that the wire allows."""
    two_members = body()
    async with client(settings.broker) as agent:
        await agent.publish(gzip.compress(body()), content_encoding="gzip")
        halves = gzip.compress(two_members[:100]) + gzip.compress(two_members[100:])
        await agent.publish(halves, content_encoding="gzip")
        await agent.publish(zstandard.compress(body()), content_encoding="zstd")
        await agent.publish(body(), content_encoding="identity")
        await drain(settings)
        assert len((await agent.confirmed(4))["persisted"]) == 4


INVALID = {
    "year 10000": lambda event: event | {"time": "10000-01-01T00:00:00Z"},
    "a time without an offset": lambda event: event | {"time": "2026-01-01T00:00:00"},
    "a number as time": lambda event: event | {"time": 1_700_000_000},
    "no id": lambda event: {k: v for k, v in event.items() if k != "id"},
    "an id that is no UUID": lambda event: event | {"id": "42"},
    "no source": lambda event: {k: v for k, v in event.items() if k != "source"},
    "another specversion": lambda event: event | {"specversion": "0.3"},
    "a tenant with a space": lambda event: event | {"tenantid": "a b"},
    "no data": lambda event: {k: v for k, v in event.items() if k != "data"},
    "data that is a list": lambda event: event | {"data": []},
    "an unknown member": lambda event: event | {"data": event["data"] | {"surprise": 1}},
    "a number as text": lambda event: event | {"data": event["data"] | {"step_number": "3"}},
    "true as a number": lambda event: event | {"data": event["data"] | {"step_number": True}},
    "a fraction as an integer": lambda event: (
        event | {"data": event["data"] | {"step_number": 3.5}}
    ),
    "an integer past the column": lambda event: (
        event | {"data": event["data"] | {"step_number": 2**31}}
    ),
    "text past the column": lambda event: (
        event | {"data": event["data"] | {"output_summary": "x" * 501}}
    ),
    "no event at all": lambda event: 42,
}


async def test_events_that_break_their_contract_are_invalid_and_name_the_field(settings):
    """Single, and beside good events in a batch: only the bad one is rejected, as a letter of its own."""
    bad = {case: json.dumps(change(log_json())).encode() for case, change in INVALID.items()}
    async with client(settings.broker) as agent:
        for case, text in bad.items():
            await agent.publish(text, message_id=case)
            await agent.publish_batch(
                [logged(), text, logged()], "execution.logged", message_id=f"batch of {case}"
            )
        await drain(settings)
        confirmed = await agent.confirmed(4 * len(bad))
    assert len(confirmed["persisted"]) == 2 * len(bad)
    assert {item["reason"] for item in confirmed["rejected"]} == {"invalid"}
    assert all(item["errors"][0]["msg"] for item in confirmed["rejected"])
    letters = {
        letter["message_id"]: letter
        for letter in await rows(settings.database, "SELECT * FROM dead_letters")
    }
    for case, text in bad.items():
        assert letters[case]["body"] == text, case
        assert letters[case]["batch_index"] is None, case
        in_batch = letters[f"batch of {case}"]
        assert in_batch["batch_index"] == 1, case
        assert json.loads(in_batch["body"]) == json.loads(text), case


async def test_in_a_batch_only_the_event_with_a_value_out_of_range_is_undecodable(settings):
    """The rest of the batch lands, and the letter holds the value as it was spelt."""
    texts = [b"1e400", b"99999999999999999999", b'"\\udc00"']
    async with client(settings.broker) as agent:
        for text in texts:
            await agent.publish_batch([logged(), spliced(text), logged()], "execution.logged")
        await drain(settings)
        confirmed = await agent.confirmed(9)
    assert len(confirmed["persisted"]) == 6
    letters = await rows(settings.database, "SELECT reason, body, batch_index FROM dead_letters")
    assert {(letter["reason"], letter["batch_index"]) for letter in letters} == {("undecodable", 1)}
    for text in texts:
        assert any(text.strip(b'"') in letter["body"] for letter in letters), text


async def test_a_nul_character_is_stored_as_its_symbol_and_repeated_keys_keep_the_last(settings):
    """PostgreSQL has no NUL; nothing else of the message is altered."""
    event = body(action="a\0b", output_full={"k\0": ["\0"]}).replace(b'"duration_ms": null, ', b"")
    twice = event.replace(b'"step_number": 1', b'"step_number": 7, "step_number": 9')
    async with client(settings.broker) as agent:
        await agent.publish(twice)
        await drain(settings)
        assert len((await agent.confirmed(1))["persisted"]) == 1
    [row] = await rows(
        settings.database, "SELECT action, step_number, output_full::text FROM execution_logs"
    )
    assert row == {"action": "a\u2400b", "step_number": 9, "output_full": '{"k\u2400": ["\u2400"]}'}


async def test_hostile_amqp_properties_reject_their_message_and_nothing_else(settings):
    """The connection lives, each is undecodable with its whole body, neighbours land at their first delivery."""
    bodies = {case: body(action=case) for case in HOSTILE}
    async with client(settings.broker) as agent:
        connection = await connect(settings.broker, name="hostile")
        for case, (flags, properties) in HOSTILE.items():
            await agent.publish(logged(), logged())
            assert await publish_hostile(
                connection, "execution.logged", flags, properties, bodies[case]
            )
        await connection.close()
        await drain(settings)
        confirmed = await agent.confirmed(3 * len(HOSTILE))
    assert len(confirmed["persisted"]) == 2 * len(HOSTILE)
    assert {item["reason"] for item in confirmed["rejected"]} == {"undecodable"}
    letters = await letters_by_body(settings)
    for case in HOSTILE:
        assert letters[bodies[case]]["reason"] == "undecodable", case
        assert letters[bodies[case]]["seen"] == 1, case


async def test_a_type_that_no_family_is_bound_for_becomes_an_unroutable_letter(settings):
    """A typo in the type vanishes nowhere: the alternate exchange catches it, and the publisher hears of it."""
    event = logged().model_copy(update={"type": "excution.logged"})
    async with client(settings.broker) as agent:
        await agent.publish(event, reply=True, correlation_id="c-1")
        await drain(settings)
        reply = await agent.reply()
    assert (reply.correlation_id, reply.outcome) == ("c-1", "rejected")
    assert reply.items[0]["reason"] == "unroutable"
    [letter] = await rows(
        settings.database, "SELECT reason, family, routing_key, type, body FROM dead_letters"
    )
    assert letter == {
        "reason": "unroutable",
        "family": "unrouted",
        "routing_key": "excution.logged",
        "type": "excution.logged",
        "body": event.to_json(),
    }


async def test_a_type_of_the_family_that_has_no_contract_is_unknown(settings):
    """A routing key that reaches the queue is not yet a type that the family knows."""
    event = logged().model_copy(update={"type": "execution.invented"})
    async with client(settings.broker) as agent:
        await agent.publish(event)
        await drain(settings)
        assert (await agent.confirmed(1))["rejected"][0]["reason"] == "unknown_type"


async def test_same_key_with_other_content_is_a_conflict_that_names_both_digests(settings):
    """The first to commit stays; the other is a letter, never silently dropped."""
    first = logged(action="one")
    other = json.loads(first.to_json())
    other["data"]["action"] = "two"
    async with client(settings.broker) as agent:
        await agent.publish(first, json.dumps(other).encode(), first)
        await drain(settings)
        confirmed = await agent.confirmed(3)
    assert {name: len(items) for name, items in confirmed.items()} == {
        "persisted": 1,
        "duplicate": 1,
        "rejected": 1,
    }
    [row] = await rows(
        settings.database,
        "SELECT action, encode(content_digest, 'hex') AS digest FROM execution_logs",
    )
    [letter] = await rows(settings.database, "SELECT reason, errors FROM dead_letters")
    assert letter["reason"] == "conflict"
    assert row["digest"] in letter["errors"]
    assert row["action"] == "one"
    # The worker is gone, and with it its connection: what it did not acknowledge would be back.
    assert await length(settings.broker, "worker.execution-log") == 0


async def test_a_row_that_postgresql_refuses_is_bisected_out_of_its_batch(settings, database_url):
    """The culprit stands alone as unstorable; its hundred neighbours land."""
    async with client(settings.broker) as agent:
        await rows(
            database_url,
            "ALTER TABLE execution_logs ADD CONSTRAINT ck_no_poison CHECK (action <> 'poison')",
        )
        events = [logged(action="poison" if at in (17, 63) else "fine") for at in range(100)]
        await agent.publish(*events)
        await drain(settings)
        confirmed = await agent.confirmed(100)
    assert len(confirmed["persisted"]) == 98
    assert {item["reason"] for item in confirmed["rejected"]} == {"unstorable"}
    assert {item["id"] for item in confirmed["rejected"]} == {
        str(events[17].id),
        str(events[63].id),
    }
    assert await count(settings.database, "execution_logs") == 98
    assert await count(settings.database, "dead_letters") == 2


def test_the_bombs_are_bombs():
    """The cases above are small on the wire and large behind it."""
    assert len(ENCODED["a gzip bomb"][1]) < 100_000
    assert len(zlib.decompress(ENCODED["a gzip bomb"][1], 31)) > 60_000_000
