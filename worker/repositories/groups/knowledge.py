"""Group C: what agents know, found by what it means as well."""

from collections.abc import Sequence

from worker.families.knowledge import agent_knowledge, knowledge_entries
from worker.repositories.repository import EntityRepository
from worker.repositories.search import Neighbour, nearest


class AgentKnowledgeRepository(EntityRepository):
    """What single agents have learnt."""

    table = agent_knowledge

    async def nearest(self, embedding: Sequence[float], *, limit: int = 10) -> list[Neighbour]:
        """The knowledge whose embeddings lie nearest to this one, the nearest first; rows come without theirs."""
        return await nearest(self._connection, self.table, self.scope, embedding, limit)


class KnowledgeEntryRepository(EntityRepository):
    """What is known of things, whoever learnt it."""

    table = knowledge_entries

    async def nearest(self, embedding: Sequence[float], *, limit: int = 10) -> list[Neighbour]:
        """The entries whose embeddings lie nearest to this one, the nearest first; rows come without theirs."""
        return await nearest(self._connection, self.table, self.scope, embedding, limit)
