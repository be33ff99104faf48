"""The family `agent-activity`: agents, sessions, decisions, trust, knowledge, conversations, audit, learning.

Owns the family's routing keys; its types stand in the modules that it gathers.
"""

from contracts import agents, conversation, decisions, knowledge
from contracts.registry import ContractFamily

FAMILY = ContractFamily(
    "agent-activity",
    (
        "agent.#",
        "session.#",
        "decision.#",
        "trust.#",
        "knowledge.#",
        "conversation.#",
        "audit.#",
        "learning.#",
    ),
    (
        *agents.CONTRACTS,
        *decisions.CONTRACTS,
        *knowledge.CONTRACTS,
        *conversation.CONTRACTS,
    ),
)
