"""Recorded runs as conversations: sessions, messages in order with tool calls, decisions."""

import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest
from support.events import decoded
from support.tables import contents, rows

from contracts import check
from worker.demo.conversations import conversations
from worker.demo.runs import Run, read
from worker.families import plan
from worker.store.database import Database
from worker.store.persist import Persister
from worker.store.writer import Writer

CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"city": "Rome"}'}},
    {"id": "c2", "type": "function", "function": {"name": "book", "arguments": "{}"}},
]
MADE_UP = {
    "task_id": 1,
    "trial": 0,
    "reward": 1.0,
    "info": {"task": {"instruction": "Book a flight.", "user_id": "mia"}},
    "traj": [
        {"role": "system", "content": "Be polite."},
        {"role": "user", "content": "A flight, please."},
        {"role": "assistant", "content": None, "tool_calls": CALLS},
        {"role": "tool", "name": "find", "tool_call_id": "c1", "content": "AZ 1"},
        {"role": "tool", "name": "book", "tool_call_id": "c2", "content": "done"},
        {"role": "assistant", "content": "Booked."},
    ],
}
MESSAGES = """
SELECT m.role, m.message_type, m.content, p.content AS parent, m.late FROM conversation_messages m
LEFT JOIN conversation_history p ON p.message_id = m.parent_message_id
WHERE m.session_id = (SELECT session_id FROM agent_sessions ORDER BY started_at LIMIT 1) ORDER BY m.created_at"""


async def store(url: str, events: list) -> Counter:
    """Commit events in batches; how many had each outcome."""
    database = Database(url, name="test")
    persister = Persister(database, Writer(plan()), "agent-activity", "agent.replies.*")
    outcomes = []
    for first in range(0, len(events), 500):
        batch = decoded(*events[first : first + 500])
        outcomes += (await persister.persist(batch)).outcomes
    await database.close()
    return Counter(getattr(outcome, "outcome", "rejected") for outcome in outcomes)


async def test_a_run_is_a_session_with_its_messages_in_order(database_url):
    """Calls stand between what was said before and what the tools returned, and each is a decision."""
    events = list(conversations([Run.model_validate(MADE_UP)]))
    random.Random(1).shuffle(events)
    assert await store(database_url, events) == {"persisted": len(events)}
    find, book = map(json.dumps, CALLS)
    assert [tuple(row.values()) for row in await rows(database_url, MESSAGES)] == [
        ("system", "text", "Be polite.", None, False),
        ("user", "text", "A flight, please.", "Be polite.", False),
        ("agent", "tool_call", find, "A flight, please.", False),
        ("agent", "tool_call", book, find, False),
        ("tool", "tool_result", "AZ 1", find, False),
        ("tool", "tool_result", "done", book, False),
        ("agent", "text", "Booked.", "done", False),
    ]
    made = await rows(
        database_url, "SELECT decision_type, action_taken FROM agent_decisions ORDER BY created_at"
    )
    assert [(row["decision_type"], json.loads(row["action_taken"])) for row in made] == [
        (call["function"]["name"], call["function"]) for call in CALLS
    ]
    [session] = await rows(database_url, "SELECT * FROM agent_sessions")
    assert (session["user_id"], session["session_state"]) == ("mia", "completed")


@pytest.fixture
def runs():
    """The recorded runs."""
    place = os.environ.get("WORKER_RECORDED_RUNS")
    if not place or not Path(place).is_file():
        pytest.skip("recorded runs are left out: WORKER_RECORDED_RUNS names no file")
    return read(Path(place))


async def test_the_recorded_runs_load_as_conversations_once(runs, database_url):
    """Each run a session, each message and call a row; a second load is duplicates and changes nothing."""
    events = list(conversations(runs))
    assert not any(check(event) for event in events[:500])
    random.Random(7).shuffle(events)
    assert await store(database_url, events) == {"persisted": len(events)}
    before = await contents(database_url)
    assert await store(database_url, events) == {"duplicate": len(events)}
    assert await contents(database_url) == before
    [counted] = await rows(
        database_url,
        "SELECT (SELECT count(*) FROM agent_sessions) AS sessions,"
        " (SELECT count(*) FROM agent_decisions) AS decisions,"
        " (SELECT count(*) FROM conversation_history WHERE message_type = 'tool_call') AS calls,"
        " (SELECT count(*) FROM orphans) AS orphans, (SELECT count(*) FROM conversation_messages WHERE late) AS late",
    )
    calls = sum(len(message.get("tool_calls") or []) for run in runs for message in run.traj)
    assert counted == {
        "sessions": len(runs), "decisions": calls, "calls": calls, "orphans": 0, "late": 0,
    }  # fmt: skip
