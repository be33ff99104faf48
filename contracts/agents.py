"""Agents and their sessions: who there is, how they fare, and the stretches of time in which they work for a user.

Both are entities: every event is first recorded in `lifecycle_events` (its id is the idempotency key) and then merged.
A session may be told of before its agent, and an end before its beginning: placeholders stand in until those come.
"""

from typing import Annotated

from pydantic import Field

from contracts.envelope import EventData
from contracts.fields import Count, JsonObject, Key, Name, Real, Text, Timestamp, or_default

AgentName = Annotated[str, Field(min_length=1, max_length=100)]
Label = Annotated[str, Field(min_length=1, max_length=50)]
AverageMilliseconds = Annotated[Real, Field(ge=0)]
TrustLevel = Annotated[int, Field(ge=0, le=4)]


class AgentRegistered(EventData):
    """An agent made itself known. Fills its row in `agents`, and makes it active; created_at is the event's time.

    An agent may register as often as it starts: the newest registration counts as a whole.
    `capabilities` is an object of what it can do, by name, such as {"languages": ["python"], "can_deploy": true}.
    `configuration` is an object of the publisher's own making: what it runs with (no secrets).
    `metadata` is an object of labels for search, such as {"team": "billing"}.
    """

    event_type = "agent.registered"

    agent_id: Name = Field(description="the agent")
    name: AgentName = Field(description="what people call it")
    type: Label = Field(description="the kind of agent, such as infra, code or research")
    persona_type: Label | None = Field(
        None, description="the part it plays: developer, qa, architect, …"
    )
    status: Annotated[Label, or_default("idle")] = Field("idle", description="what it does now")
    capabilities: JsonObject | None = Field(None, description="what it can do")
    configuration: JsonObject | None = Field(None, description="what it runs with")
    metadata: JsonObject | None = Field(None, description="labels for search")


class AgentUpdated(EventData):
    """What is known of an agent changed. Sets the members that are given.

    `capabilities`, `configuration` and `metadata` are objects as in `agent.registered`; each replaces the last as a whole.
    """

    event_type = "agent.updated"

    agent_id: Name = Field(description="the agent")
    name: AgentName | None = Field(None, description="what people call it")
    type: Label | None = Field(None, description="the kind of agent")
    persona_type: Label | None = Field(None, description="the part it plays")
    capabilities: JsonObject | None = Field(None, description="what it can do")
    configuration: JsonObject | None = Field(None, description="what it runs with")
    metadata: JsonObject | None = Field(None, description="labels for search")


class AgentHeartbeat(EventData):
    """An agent is alive, and tells how it fares. Sets last_heartbeat to the event's time, and the members that are given.

    The figures are totals so far, never increments.
    """

    event_type = "agent.heartbeat"

    agent_id: Name = Field(description="the agent")
    status: Label | None = Field(None, description="what it does now, such as idle or busy")
    tasks_completed: Count | None = Field(None, description="tasks that it completed, in all")
    tasks_failed: Count | None = Field(None, description="tasks that it failed, in all")
    average_task_duration_ms: AverageMilliseconds | None = Field(
        None, description="how long its tasks took on average"
    )


class AgentStatusChanged(EventData):
    """An agent turned to something else. Sets status."""

    event_type = "agent.status_changed"

    agent_id: Name = Field(description="the agent")
    status: Label = Field(description="what it does now, such as idle, busy or error")


class AgentDeactivated(EventData):
    """An agent was taken out of service: it is no longer active until it registers again.

    `reason` stays in `lifecycle_events.data`.
    """

    event_type = "agent.deactivated"

    agent_id: Name = Field(description="the agent")
    reason: Text | None = Field(None, description="why")


class SessionStarted(EventData):
    """An agent began to work for a user. Fills the session's row in `agent_sessions`; state `active`.

    created_at and started_at are the event's time.
    `context` is an object of the publisher's own making: what the session knows, such as {"repository": "billing"}.
    `metadata` is an object of labels for search.
    """

    event_type = "session.started"

    session_id: Key = Field(description="the session")
    agent_id: Name = Field(description="the agent that works")
    user_id: Name | None = Field(None, description="the user that it works for")
    trust_level: Annotated[TrustLevel, or_default(0)] = Field(
        0, description="how much it may do alone, from 0 to 4"
    )
    context: JsonObject | None = Field(None, description="what the session knows")
    expires_at: Timestamp | None = Field(None, description="when it ends by itself")
    metadata: JsonObject | None = Field(None, description="labels for search")


class SessionUpdated(EventData):
    """A session's trust level, context or end changed. Sets the members that are given.

    `context` and `metadata` are objects as in `session.started`; each replaces the last as a whole.
    """

    event_type = "session.updated"

    session_id: Key = Field(description="the session")
    trust_level: TrustLevel | None = Field(None, description="how much it may do alone")
    context: JsonObject | None = Field(None, description="what the session knows")
    expires_at: Timestamp | None = Field(None, description="when it ends by itself")
    metadata: JsonObject | None = Field(None, description="labels for search")


class SessionPaused(EventData):
    """A session rests. State `paused`; `reason` stays in `lifecycle_events.data`."""

    event_type = "session.paused"

    session_id: Key = Field(description="the session")
    reason: Text | None = Field(None, description="why")


class SessionResumed(EventData):
    """A session goes on after a rest. State `active`; an end that came before or after stays."""

    event_type = "session.resumed"

    session_id: Key = Field(description="the session")
    expires_at: Timestamp | None = Field(None, description="when it ends by itself")


class SessionCompleted(EventData):
    """A session came to its end. State `completed`, ended_at is the event's time.

    `context` is an object as in `session.started`: what the session knew at its end.
    `reason` stays in `lifecycle_events.data`.
    """

    event_type = "session.completed"

    session_id: Key = Field(description="the session")
    context: JsonObject | None = Field(None, description="what the session knew at its end")
    reason: Text | None = Field(None, description="why")


class SessionExpired(EventData):
    """A session ran out of time. State `expired`; sets ended_at only where it is empty.

    A session that is told to have been completed stays completed.
    """

    event_type = "session.expired"

    session_id: Key = Field(description="the session")


CONTRACTS = (
    AgentRegistered,
    AgentUpdated,
    AgentHeartbeat,
    AgentStatusChanged,
    AgentDeactivated,
    SessionStarted,
    SessionUpdated,
    SessionPaused,
    SessionResumed,
    SessionCompleted,
    SessionExpired,
)
"""All of this module, in the order in which documents tell of them."""
