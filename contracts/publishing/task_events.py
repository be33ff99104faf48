"""Events of one task, each stamped with the attempt that it tells of."""

from typing import Any
from uuid import UUID

from contracts.envelope import Event, EventData
from contracts.task_lifecycle import TaskRetrying


class TaskEvents:
    """Makes the events of one task and holds its attempt, so that no event of a later attempt is taken for an old one.

    The attempt is stamped on every event whose contract has one. Give `attempt=None` to cancel or reject a task
    whatever attempts there are.
    """

    def __init__(self, task_id: UUID, *, source: str, tenant: str, attempt: int = 1) -> None:
        self.task_id = task_id
        self.attempt = attempt
        self._source = source
        self._tenant = tenant

    def event(self, contract: type[EventData], /, **members: Any) -> Event:
        """An event of this task: `task.event(TaskStarted, agent_id="infra-1")`."""
        stamped: dict[str, Any] = {"task_id": self.task_id}
        if "attempt" in contract.model_fields:
            stamped["attempt"] = self.attempt
        return contract(**{**stamped, **members}).event(source=self._source, tenant=self._tenant)

    def retrying(self) -> Event:
        """The task is tried again: raises the attempt and gives the event that says so."""
        self.attempt += 1
        return self.event(TaskRetrying)
