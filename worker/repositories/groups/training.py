"""Group B: training jobs, the trajectories that they gather, and the policies that they save."""

from uuid import UUID

from worker.families.trajectory import policy_checkpoints, training_jobs, trajectories
from worker.repositories.query import Filter
from worker.repositories.repository import EntityRepository, Repository, Row


class TrainingJobRepository(EntityRepository):
    """Training jobs."""

    table = training_jobs


class TrajectoryRepository(Repository):
    """Runs of agents on queries. `columns` without `steps` makes long lists light."""

    table = trajectories


class PolicyCheckpointRepository(Repository):
    """Saved policies."""

    table = policy_checkpoints

    async def best(self, job_id: UUID) -> Row | None:
        """The checkpoint of a job with the best validation score; None where none was scored."""
        scored = [Filter("job_id", "=", job_id), Filter("validation_score", "is null", value=False)]
        page = await self.find(scored, sort=("-validation_score",), limit=1)
        return page.rows[0] if page.rows else None
