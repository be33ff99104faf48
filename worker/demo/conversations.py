"""Recorded runs of a tool-using agent as conversations: what an agent that keeps sessions would have published. Pure.

- All runs are of one agent, which registers; a run is one session of it, from its first message to its end.
- A message is one `conversation.message_recorded`, in order. One that calls tools is its text, where it has any, and
  one of the type tool_call for each call, whose content is the call as JSON. What a tool returns names that call as
  its parent; every other message names the one before.
- A tool call is also one `decision.made`: what the agent chose to do.

Ids and times are made as in recorded.py, so that a second load is the same events.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from contracts.agents import AgentRegistered, SessionCompleted, SessionStarted
from contracts.conversation import ConversationMessageRecorded
from contracts.decisions import DecisionMade
from contracts.envelope import Event, EventData
from worker.demo.recorded import AGENT, SOURCE, derived_id
from worker.demo.runs import START, Message, Run

_ROLES = {"user": "user", "system": "system", "tool": "tool"}
_MAX_TYPE = 50


def conversations(runs: Iterable[Run], *, tenant: str = "default") -> Iterator[Event]:
    """The events of these runs, in the order in which they would have been published; the same for every call."""
    registered = AgentRegistered(agent_id=AGENT, name="Recorded agent", type="assistant")
    yield _event(registered, START, tenant, "agent")
    for run in sorted(runs, key=lambda run: run.place):
        yield from _Session(run, tenant).events()


class _Session:
    """One run as a session."""

    def __init__(self, run: Run, tenant: str) -> None:
        self._run = run
        self._tenant = tenant
        self._id = derived_id(run.begin, "session", *run.place)
        self._before: UUID | None = None
        self._calls: dict[str, UUID] = {}

    def events(self) -> Iterator[Event]:
        """Started, every message, completed."""
        run = self._run
        started = SessionStarted(
            session_id=self._id,
            agent_id=AGENT,
            user_id=run.info.task.user_id,
            context={"instruction": run.info.task.instruction},
            metadata={"task": run.task_id, "trial": run.trial},
        )
        yield self._event(started, run.begin)
        for index, message in enumerate(run.traj):
            yield from self._message(index, message)
        yield self._event(SessionCompleted(session_id=self._id), run.end)

    def _message(self, index: int, message: Message) -> Iterator[Event]:
        """A message as what was said and what was called, a millisecond apart."""
        role = _ROLES.get(str(message.get("role")), "agent")
        content, calls = message.get("content"), message.get("tool_calls") or []
        time = self._run.time_of(index)
        if content is not None or not calls:
            kind = "tool_result" if role == "tool" else "text"
            parent = self._calls.get(str(message.get("tool_call_id")), self._before)
            text = content if isinstance(content, str) else json.dumps(content)
            yield self._said(
                time, (index,), role, kind, text if content is not None else "", parent
            )
        for number, call in enumerate(calls, 1):
            at = time + timedelta(milliseconds=number)
            said = self._said(
                at, (index, number), "agent", "tool_call", json.dumps(call), self._before
            )
            self._calls[str(call.get("id"))] = UUID(said.data["message_id"])
            yield said
            yield self._decided(at, (index, number), call)

    def _said(
        self,
        time: datetime,
        place: tuple[int, ...],
        role: Any,
        kind: str,
        text: str,
        parent: UUID | None,
    ) -> Event:
        key = derived_id(time, "message", *self._run.place, *place)
        content = ConversationMessageRecorded(
            session_id=self._id,
            message_id=key,
            role=role,
            message_type=kind,
            content=text,
            parent_message_id=parent,
        )
        self._before = key
        return self._event(content, time, *place)

    def _decided(self, time: datetime, place: tuple[int, ...], call: dict[str, Any]) -> Event:
        function = call.get("function") or {}
        made = DecisionMade(
            decision_id=derived_id(time, "decision", *self._run.place, *place),
            session_id=self._id,
            decision_type=str(function.get("name") or "tool_call")[:_MAX_TYPE],
            action_taken=function or None,
        )
        return self._event(made, time, *place)

    def _event(self, data: EventData, time: datetime, *what: object) -> Event:
        return _event(data, time, self._tenant, *self._run.place, *what)


def _event(data: EventData, time: datetime, tenant: str, *what: object) -> Event:
    key = derived_id(time, data.event_type, *what)
    return data.event(source=SOURCE, tenant=tenant, id=key, time=time)
