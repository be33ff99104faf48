"""What is said in a session, and what an agent did that has to be accounted for: facts, each with a key of its own."""

from typing import Annotated, Literal

from pydantic import Field

from contracts.agents import Label
from contracts.envelope import EventData
from contracts.fields import (
    Count,
    IpAddress,
    JsonObject,
    Key,
    Name,
    Timestamp,
    or_default,
)


class ConversationMessageRecorded(EventData):
    """Something was said in a session. One row in `conversation_history`; message_id is the idempotency key, else the event's id.

    It is stored after the session's end, too: the view `conversation_messages` then shows it as late.
    A tool call is a message of the role agent and the type tool_call, whose content is the call as JSON; what the tool
    answers is one of the role tool, whose parent is the call.
    """

    event_type = "conversation.message_recorded"
    key_fields = ("message_id",)

    session_id: Key = Field(description="the session")
    role: Literal["user", "agent", "system", "tool"] = Field(description="who said it")
    content: str = Field(description="what was said; it may be empty")
    message_id: Key | None = Field(None, description="the message's own key")
    message_type: Annotated[str, Field(min_length=1, max_length=30), or_default("text")] = Field(
        "text", description="the kind of message, such as text, tool_call or tool_result"
    )
    parent_message_id: Key | None = Field(None, description="the message that it answers")
    tokens_used: Count | None = Field(None, description="tokens that it took")
    model_used: Label | None = Field(None, description="the model that wrote it")
    created_at: Timestamp | None = Field(
        None, description="when it was said; the event's time where absent"
    )


class AuditRecorded(EventData):
    """An agent did something that has to be accounted for. One row in `agent_audit_log`, which nobody changes or deletes.

    The idempotency key is audit_id, else the event's id.
    `action_details` is an object of the publisher's own making: what exactly was done.
    """

    event_type = "audit.recorded"
    key_fields = ("audit_id",)

    agent_id: Name = Field(description="the agent")
    action_type: Label = Field(description="the kind of action, such as file_write")
    audit_id: Key | None = Field(None, description="the entry's own key")
    session_id: Key | None = Field(None, description="the session in which it was done")
    action_details: JsonObject | None = Field(None, description="what exactly was done")
    risk_level: Annotated[Literal["low", "medium", "high", "critical"], or_default("low")] = Field(
        "low", description="how much can go wrong"
    )
    user_id: Name | None = Field(None, description="the user on whose behalf")
    timestamp: Timestamp | None = Field(
        None, description="when it was done; the event's time where absent"
    )
    ip_address: IpAddress | None = Field(None, description="where the request came from")
    user_agent: Annotated[str, Field(max_length=1000)] | None = Field(
        None, description="what the request came from, as it named itself"
    )


CONTRACTS = (ConversationMessageRecorded, AuditRecorded)
"""All of this module, in the order in which documents tell of them."""
