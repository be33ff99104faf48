"""Group A: tasks, what they depend on, and the log of what was done for them."""

from uuid import UUID

import sqlalchemy as sa

from worker.families.execution_log import execution_logs
from worker.families.task_lifecycle import task_dependencies, tasks
from worker.repositories.paging import Page
from worker.repositories.repository import EntityRepository, Repository


class TaskRepository(EntityRepository):
    """Tasks. A row with `placeholder` true was only named so far."""

    table = tasks

    async def children(self, task_id: UUID, *, limit: int = 50, after: str | None = None) -> Page:
        """The tasks that are parts of this one."""
        return await self.find({"parent_task_id": task_id}, limit=limit, after=after)

    async def waits_for(self, task_id: UUID) -> list[UUID]:
        """The tasks that this one depends on."""
        table = task_dependencies
        chosen = (
            sa.select(table.c.depends_on_task_id)
            .where(table.c.task_id == task_id, table.c.tenant_id == self.scope.tenant)
            .order_by(table.c.depends_on_task_id)
        )
        return list((await self._connection.execute(chosen)).scalars())


class TaskDependencyRepository(Repository):
    """Which task waits for which; the pair is the key."""

    table = task_dependencies


class ExecutionLogRepository(Repository):
    """What agents did, step by step."""

    table = execution_logs

    async def of_task(self, task_id: UUID, *, limit: int = 100, after: str | None = None) -> Page:
        """The steps of a task, in their order."""
        sort = ("step_number", "timestamp")
        return await self.find({"task_id": task_id}, sort=sort, limit=limit, after=after)
