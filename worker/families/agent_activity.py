"""The family `agent-activity`: its tables stand in the modules that it gathers."""

from contracts import agent_activity as contract
from worker.families import agents, conversation, decisions, knowledge
from worker.store.declaration import Family

REVISION = "0006"
"""The migration that these tables need."""

FAMILY = Family(
    contract=contract.FAMILY,
    tables=(
        agents.AGENT,
        agents.SESSION,
        decisions.DECISION,
        decisions.TRUST_METRIC,
        knowledge.KNOWLEDGE,
        knowledge.KNOWLEDGE_ENTRY,
        knowledge.LEARNING,
        conversation.CONVERSATION,
        conversation.AUDIT,
    ),
    revision=REVISION,
)
