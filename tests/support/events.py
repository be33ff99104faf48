"""Events for tests, each with a new id unless one is given."""

from typing import Any
from uuid import UUID

from contracts import Event
from contracts.execution_log import ExecutionLogged
from contracts.identifiers import uuid7
from contracts.registry import contract_types
from contracts.task_lifecycle import TaskCreated
from worker.decode import Decoder
from worker.families import plan
from worker.message import Decoded, Delivery, Properties

SOURCE = "/agents/tester"


def logged(
    task_id: UUID | None = None, *, source: str = SOURCE, tenant: str = "default", **data: Any
) -> Event:
    """A log entry of a task."""
    given = {
        "step_number": 1,
        "agent_type": "infra",
        "action": "act",
        "status": "completed",
        **data,
    }
    entry = ExecutionLogged(
        task_id=task_id or uuid7(), log_id=given.pop("log_id", uuid7()), **given
    )
    return entry.event(source=source, tenant=tenant)


def created(
    task_id: UUID | None = None, *, source: str = SOURCE, tenant: str = "default", **data: Any
) -> Event:
    """A task."""
    given = {"request_text": "do it", **data}
    return TaskCreated(task_id=task_id or uuid7(), **given).event(source=source, tenant=tenant)


def delivery(body: Event | bytes, *, family: str = "task-lifecycle", **given: Any) -> Delivery:
    """A delivery as the broker would hand it out."""
    raw = body if isinstance(body, bytes) else body.to_json()
    fields = {
        "tag": 1,
        "redelivered": False,
        "exchange": "agent.messages",
        "routing_key": "",
        **given,
    }
    fields.setdefault("properties", Properties())
    return Delivery(family=family, body=raw, properties_raw=b"", **fields)


def decoded(*events: Event, redelivered: bool = False) -> list[Decoded]:
    """Events as the pipeline has them, each through the decoder of its family."""
    found = []
    for event in events:
        family, _ = contract_types()[event.type]
        found += Decoder(family, facts=plan().facts).decode(
            delivery(event, family=family.name, redelivered=redelivered)
        )
    return found
