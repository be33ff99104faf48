"""What is published of a transaction is the same, byte for byte, whether the relay has it from memory or a sweep reads its row."""

import json
from datetime import UTC, datetime
from uuid import UUID

import orjson
import pytest
from support.events import created, decoded, logged

from contracts.identifiers import uuid7
from worker.announcer import confirmation_bodies
from worker.message import Accepted, Message, Rejected
from worker.store.outbox import OutboxEntry, ReplyRule, as_text, payload


def settled():
    """A stored and a known event, and one that its contract refuses."""
    stored, known, _ = items = decoded(logged(), created(uuid7()), logged(action="wrong"))
    assert all(isinstance(item, Message) for item in items)
    refused = Rejected(stored.delivery, None, "invalid", [], b"{}", id="x", key="x", source="/a")
    return [Accepted(stored, "persisted"), Accepted(known, "duplicate"), refused]


def test_memory_and_row_give_the_same_confirmations():
    """UUIDs in memory, text in the row: the events that listeners get do not differ."""
    content = payload(settled(), ReplyRule("agent.replies.*", lambda: None))
    entry_id, now = uuid7(), datetime.now(UTC)
    read = orjson.loads(orjson.dumps(content, default=as_text))
    told = [
        [
            body
            for group in entry.payload["groups"]
            for body in confirmation_bodies(entry, group, "worker")
        ]
        for entry in (
            OutboxEntry(entry_id, "execution-log", content, now, 0),
            OutboxEntry(entry_id, "execution-log", read, now, 0),
        )
    ]
    assert told[0] == told[1]
    assert len(told[0]) == 3
    for body in told[0]:
        for item in json.loads(body)["data"]["items"]:
            assert isinstance(item["id"], str)
            assert isinstance(item["key"], str)


def test_a_payload_holds_nothing_that_is_no_json():
    """The driver's own UUIDs become text; anything else is an error and never published as somebody's text."""

    class DriversOwn(UUID):
        pass

    key = DriversOwn(int=7)
    assert orjson.dumps({"key": key}, default=as_text) == b'{"key":"%s"}' % str(key).encode()
    with pytest.raises(TypeError):
        orjson.dumps({"key": {1, 2}}, default=as_text)
