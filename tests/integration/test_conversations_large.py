"""The latest messages of one session among a million of others: by the index, and at once."""

import time
from uuid import UUID

import pytest
from support.plans import indexes_of_query
from support.tables import connected, rows
from support.volume import load_conversations

from worker.repositories.scope import Scope
from worker.repositories.service import DatabaseService
from worker.settings import Settings

SIZES = [
    pytest.param(20, 200, id="a few thousand"),
    pytest.param(
        100, 10_000, id="a million", marks=[pytest.mark.torture, pytest.mark.timeout(900)]
    ),
]
SCOPE = Scope("default")


@pytest.mark.parametrize(("sessions", "messages"), SIZES)
async def test_the_latest_fifty_messages_of_a_session_come_at_once(
    database_url, sessions, messages
):
    """Newest first, from the index on session and time; among a million messages in less than a tenth of a second."""
    async with connected(database_url) as connection:
        await load_conversations(connection, sessions=sessions, messages=messages)
    [chosen] = await rows(
        database_url, "SELECT session_id FROM agent_sessions ORDER BY session_id LIMIT 1"
    )
    session = UUID(str(chosen["session_id"]))
    wanted = await rows(
        database_url,
        "SELECT message_id FROM conversation_history WHERE session_id = $1 ORDER BY created_at DESC LIMIT 50",
        session,
    )
    settings = Settings.load(database_url=database_url, amqp_url="amqp://not-used")
    taken = []
    async with DatabaseService(settings) as service:
        for _ in range(5):
            began = time.perf_counter()
            async with service.reading(SCOPE) as work:
                history = work.table("conversation_history")
                page = await history.find({"session_id": str(session)}, limit=50)
            taken.append(time.perf_counter() - began)
            assert [row["message_id"] for row in page.rows] == [row["message_id"] for row in wanted]
        async with service.database.connection() as connection:
            query = history.query({"session_id": str(session)}, limit=50)
            used = await indexes_of_query(connection, query)
    told = f"{min(taken) * 1000:.1f} ms, the first time {taken[0] * 1000:.1f} ms, {used}"
    print(f"{sessions * messages} messages: {told}")  # noqa: T201 (pytest shows it with -s)
    assert used == {"ix_conversation_history_session_id_created_at"}
    if sessions * messages >= 1_000_000:  # what a limit of time can be held to
        assert taken[0] < 0.1
