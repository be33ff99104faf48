"""What agents learn: knowledge of their own, entries of a shared knowledge graph, and the experiences behind both.

Knowledge and entries are entities, an experience is a fact.
"""

from typing import Annotated, Literal

from pydantic import Field

from contracts.agents import Label
from contracts.envelope import EventData
from contracts.fields import Count, JsonObject, Key, Name, Share, Timestamp

DIMENSIONS = 1536
"""Numbers of an embedding."""

REAL_MAX = 3.4028234663852886e38
"""Largest number of an embedding: it is kept as a REAL."""

Embedding = Annotated[
    list[Annotated[float, Field(ge=-REAL_MAX, le=REAL_MAX)]],
    Field(min_length=DIMENSIONS, max_length=DIMENSIONS),
]
"""A list of 1536 numbers, kept in single precision (as every vector store does)."""

Domain = Annotated[str, Field(min_length=1, max_length=100)]


class KnowledgeLearned(EventData):
    """An agent learned something. Fills its row in `agent_knowledge`; created_at is the event's time.

    `content` is an object of the publisher's own making, such as {"when": "disk full", "do": "rotate logs"}.
    """

    event_type = "knowledge.learned"

    knowledge_id: Key = Field(description="the piece of knowledge")
    agent_id: Name = Field(description="the agent that learned it")
    knowledge_type: Literal["pattern", "solution", "preference"] = Field(
        description="the kind of knowledge"
    )
    content: JsonObject = Field(description="what was learned")
    domain: Domain | None = Field(None, description="what it is about")
    embedding: Embedding | None = Field(None, description="where it lies among others, for search")
    success_rate: Share | None = Field(None, description="how often it helps, from 0 to 1")


class KnowledgeUpdated(EventData):
    """What an agent knew was revised. Sets the members that are given.

    `content` is an object as in `knowledge.learned`; it replaces the last as a whole.
    """

    event_type = "knowledge.updated"

    knowledge_id: Key = Field(description="the piece of knowledge")
    content: JsonObject | None = Field(None, description="what was learned")
    domain: Domain | None = Field(None, description="what it is about")
    embedding: Embedding | None = Field(None, description="where it lies among others, for search")


class KnowledgeUsed(EventData):
    """An agent made use of what it knew. Sets last_used_at to the event's time, and the members that are given.

    usage_count is the number of uses so far, never an increment.
    """

    event_type = "knowledge.used"

    knowledge_id: Key = Field(description="the piece of knowledge")
    usage_count: Count | None = Field(None, description="how often it was used, in all")
    success_rate: Share | None = Field(None, description="how often it helped, from 0 to 1")


class KnowledgeEntryRecorded(EventData):
    """A thing was entered into the knowledge graph. Fills its row in `knowledge_entries`; created_at is the event's time.

    `properties` is an object of the publisher's own making: what is known of the thing.
    """

    event_type = "knowledge.entry_recorded"

    id: Key = Field(description="the entry")
    entity_type: Label = Field(description="the kind of thing, such as service or person")
    entity_name: Name = Field(description="what it is called")
    properties: JsonObject | None = Field(None, description="what is known of it")
    embedding: Embedding | None = Field(None, description="where it lies among others, for search")
    external_graph_id: Name | None = Field(None, description="its key in a graph database outside")


class KnowledgeEntryUpdated(EventData):
    """What is known of a thing changed. Sets the members that are given.

    `properties` is an object as in `knowledge.entry_recorded`; it replaces the last as a whole.
    """

    event_type = "knowledge.entry_updated"

    id: Key = Field(description="the entry")
    entity_name: Name | None = Field(None, description="what it is called")
    properties: JsonObject | None = Field(None, description="what is known of it")
    embedding: Embedding | None = Field(None, description="where it lies among others, for search")
    external_graph_id: Name | None = Field(None, description="its key in a graph database outside")


class LearningRecorded(EventData):
    """An agent had an experience to learn from. One row in `learning_experiences`; id is the idempotency key, else the event's id.

    `input_data` and `output_data` are objects of the publisher's own making: what it began with, and what came of it.
    `learning_points` is a list of objects of the publisher's own making, such as [{"point": "ask before deleting"}].
    `feedback` is an object of the publisher's own making: what others said.
    """

    event_type = "learning.recorded"
    key_fields = ("id",)

    agent_id: Name = Field(description="the agent")
    experience_type: Label = Field(description="the kind of experience, such as success or failure")
    id: Key | None = Field(None, description="the experience's own key")
    task_id: Key | None = Field(None, description="the task in which it was had")
    input_data: JsonObject | None = Field(None, description="what it began with")
    output_data: JsonObject | None = Field(None, description="what came of it")
    success: bool | None = Field(None, description="whether it went well")
    confidence: Share | None = Field(None, description="how sure the agent is, from 0 to 1")
    learning_points: list[JsonObject] | None = Field(None, description="what is to be learned")
    feedback: JsonObject | None = Field(None, description="what others said")
    created_at: Timestamp | None = Field(
        None, description="when it was had; the event's time where absent"
    )


CONTRACTS = (
    KnowledgeLearned,
    KnowledgeUpdated,
    KnowledgeUsed,
    KnowledgeEntryRecorded,
    KnowledgeEntryUpdated,
    LearningRecorded,
)
"""All of this module, in the order in which documents tell of them."""
