"""What the views say of agents, sessions and trust, each told of by messages in the order that suits least."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from support.events import created, decoded
from support.tables import rows

from contracts import agents, conversation, decisions, task_lifecycle, uuid7
from worker.families import plan
from worker.message import Accepted
from worker.store.database import Database
from worker.store.persist import Persister
from worker.store.writer import Writer

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SESSION = UUID(int=0x019A_0000_0000_7000_8000_0000_0000_0001)


@pytest.fixture
async def tell(database_url):
    """Store contents as events, each so many minutes after noon."""
    database = Database(database_url, name="test")
    persister = Persister(database, Writer(plan()), "agent-activity", "agent.replies.*")

    async def store(*contents) -> None:
        events = [
            content.event(source="/agents/a", time=NOON + timedelta(minutes=minute))
            for minute, content in contents
        ]
        outcomes = (await persister.persist(decoded(*events))).outcomes
        assert all(isinstance(outcome, Accepted) for outcome in outcomes)

    yield store
    await database.close()


def started(**given):
    return agents.SessionStarted(session_id=SESSION, agent_id="a", **given)


def decided(feedback=None):
    return decisions.DecisionMade(
        decision_id=uuid7(), session_id=SESSION, decision_type="plan", user_feedback=feedback
    )


async def trust(url):
    [row] = await rows(url, "SELECT * FROM session_trust")
    return row


async def test_five_successful_decisions_at_level_0_raise_confidence(tell, database_url):
    """Four do not, the fifth does: confidence rises with each, and the next level is earned at the fifth."""
    await tell((0, started()))
    before = await trust(database_url)
    assert (before["confidence"], before["raised"], before["earned_level"]) == (0.5, False, 0)
    confidence = before["confidence"]
    for number in range(1, 6):
        await tell((number, decided("approved")))
        now = await trust(database_url)
        assert now["confidence"] > confidence
        assert (now["successful"], now["raised"]) == (number, number == 5)
        confidence = now["confidence"]
    assert (now["trust_level"], now["earned_level"]) == (0, 1)


async def test_trust_follows_the_reviews_and_the_level(tell, database_url):
    """A rejection begins the row anew; what was decided before the level was set counts no more; above 4 is nothing."""
    reviewed = decided()
    await tell(
        (9, decisions.DecisionReviewed(decision_id=reviewed.decision_id, user_feedback="rejected")),
        (3, reviewed),
        *((minute, decided("approved")) for minute in (1, 2, 4, 5, 6, 7)),
        (0, started()),
    )
    row = await trust(database_url)
    assert (row["decisions"], row["successful"], row["unsuccessful"]) == (7, 6, 1)
    assert (row["successful_in_a_row"], row["raised"]) == (4, False)
    await tell((8, decided("approved")))
    assert (await trust(database_url))["raised"]
    await tell((10, agents.SessionUpdated(session_id=SESSION, trust_level=4)))
    row = await trust(database_url)
    assert (row["trust_level"], row["decisions"], row["raised"]) == (4, 0, False)
    await tell(*((11, decided("approved")) for _ in range(5)))
    assert (await trust(database_url))["earned_level"] == 4


async def test_the_newest_metric_of_each_type_is_shown(tell, database_url):
    """Accuracy, autonomy and complexity, whichever came last to the worker."""

    def measured(kind, value):
        return decisions.TrustMeasured(session_id=SESSION, metric_type=kind, metric_value=value)

    await tell(
        (5, measured("accuracy", 91.5)), (1, measured("accuracy", 12)), (2, measured("complexity", 3.25)),
        (0, started()),
    )  # fmt: skip
    row = await trust(database_url)
    assert (float(row["accuracy"]), row["autonomy"], float(row["complexity"])) == (91.5, None, 3.25)


async def test_what_comes_after_a_sessions_end_is_late(tell, database_url):
    """Stored and shown as late, whether the end was told before or after it; after expires_at, too."""

    def said(text):
        return conversation.ConversationMessageRecorded(
            session_id=SESSION, role="user", content=text
        )

    await tell((1, said("in time")), (9, said("after the end")), (9, decided()), (0, started()))
    late = "SELECT content, late FROM conversation_messages ORDER BY created_at"
    assert [row["late"] for row in await rows(database_url, late)] == [False, False]
    await tell((5, agents.SessionCompleted(session_id=SESSION)))
    assert [row["late"] for row in await rows(database_url, late)] == [False, True]
    activity = await rows(
        database_url, "SELECT table_name FROM session_activity WHERE late ORDER BY table_name"
    )
    assert [row["table_name"] for row in activity] == ["agent_decisions", "conversation_history"]
    await tell(
        (3, agents.SessionUpdated(session_id=SESSION, expires_at=NOON + timedelta(seconds=30)))
    )
    assert [row["late"] for row in await rows(database_url, late)] == [True, True]


async def test_a_session_goes_on_after_a_pause_but_not_after_its_end(tell, database_url):
    """Pauses and resumptions win by time; an expiry ends it, a completion counts for more, and nothing opens it again."""

    async def state():
        [row] = await rows(database_url, "SELECT session_state, ended_at FROM agent_sessions")
        return row["session_state"], row["ended_at"]

    await tell((2, agents.SessionResumed(session_id=SESSION)), (0, started()))
    await tell((1, agents.SessionPaused(session_id=SESSION)))
    assert await state() == ("active", None)
    await tell((3, agents.SessionPaused(session_id=SESSION)))
    assert await state() == ("paused", None)
    await tell((4, agents.SessionExpired(session_id=SESSION)))
    await tell((6, agents.SessionResumed(session_id=SESSION)))
    assert await state() == ("expired", NOON + timedelta(minutes=4))
    await tell((3, agents.SessionCompleted(session_id=SESSION)))
    assert await state() == ("completed", NOON + timedelta(minutes=3))


async def test_active_sessions_are_those_that_have_not_run_out(tell, database_url):
    """Neither ended nor past expires_at, whether or not anybody has told that it expired."""
    names = {}
    for name, expires in (
        ("open", None),
        ("over", NOON),
        ("later", datetime.now(UTC) + timedelta(days=1)),
    ):
        names[key := uuid7()] = name
        await tell((0, agents.SessionStarted(session_id=key, agent_id="a", expires_at=expires)))
    await tell((1, agents.SessionPaused(session_id=uuid7())))  # only named so far
    found = await rows(database_url, "SELECT session_id FROM active_sessions")
    assert sorted(names[row["session_id"]] for row in found) == ["later", "open"]


async def test_an_agents_performance_is_what_it_says_and_what_its_tasks_say(tell, database_url):
    """The success rate of its own totals, and of its tasks; none where there is nothing to go by."""
    ids = [uuid7() for _ in range(3)]
    await tell(
        (0, agents.AgentRegistered(agent_id="a", name="A", type="infra")),
        (0, agents.AgentRegistered(agent_id="b", name="B", type="code")),
        (2, agents.AgentHeartbeat(agent_id="a", tasks_completed=9, tasks_failed=1)),
        (1, agents.AgentHeartbeat(agent_id="a", tasks_completed=2, tasks_failed=8)),
    )
    await tell(
        *(
            (0, task_lifecycle.TaskCreated(task_id=key, request_text="x", agent_id="a"))
            for key in ids
        )
    )
    await tell(
        (1, task_lifecycle.TaskCompleted(task_id=ids[0])),
        (1, task_lifecycle.TaskFailed(task_id=ids[1], error_message="x")),
    )
    found = await rows(
        database_url,
        "SELECT agent_id, success_rate, observed_success_rate FROM agent_performance ORDER BY agent_id",
    )
    assert [tuple(row.values()) for row in found] == [("a", 0.9, 0.5), ("b", None, None)]


async def test_an_agent_is_active_from_registration_to_deactivation(tell, database_url):
    """The later of the two counts, in whatever order they come."""

    async def active():
        [row] = await rows(database_url, "SELECT is_active FROM agents")
        return row["is_active"]

    registered = agents.AgentRegistered(agent_id="a", name="A", type="infra")
    await tell((2, agents.AgentDeactivated(agent_id="a")))
    await tell((1, registered))
    assert not await active()
    await tell((3, registered))
    assert await active()


async def test_active_tasks_name_their_agent(tell, database_url):
    """The agent's name and type where somebody has told of it, and the task all the same where nobody has."""
    for agent in ("a", "nobody"):
        event = created(agent_id=agent)
        await tell((0, task_lifecycle.TaskCreated.model_validate(event.data, strict=False)))
    await tell((0, agents.AgentRegistered(agent_id="a", name="Infra 1", type="infra")))
    found = await rows(
        database_url, "SELECT agent_id, agent_name, agent_type FROM active_tasks ORDER BY agent_id"
    )
    assert [tuple(row.values()) for row in found] == [
        ("a", "Infra 1", "infra"), ("nobody", None, None),
    ]  # fmt: skip
