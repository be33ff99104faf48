"""What an agent decides in a session, what people think of it, and how far it is trusted.

A decision is an entity: it is made, and later perhaps reviewed. A trust metric is a fact.
"""

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from contracts.agents import Label
from contracts.envelope import EventData
from contracts.fields import (
    JsonObject,
    Key,
    Milliseconds,
    Name,
    Share,
    Text,
    Timestamp,
    decimal_number,
)

Feedback = Literal["approved", "rejected", "modified"]

_METRICS_UP_TO: dict[int, list[JsonValue]] = {100: ["accuracy", "autonomy"], 10: ["complexity"]}
"""The largest value of trust metrics, and which these are; the smallest is 0."""

MetricValue = Annotated[
    Decimal,
    BeforeValidator(decimal_number),
    PlainSerializer(float, return_type=float, when_used="json"),
    Field(ge=0, le=100, max_digits=5, decimal_places=2),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 100}),
]
"""NUMERIC(5,2); more places than the column holds are refused, not rounded."""


class DecisionMade(EventData):
    """An agent decided something. Fills its row in `agent_decisions`; created_at is the event's time.

    `input_context` is an object of the publisher's own making: what the agent knew.
    `action_taken` is an object of the publisher's own making, such as {"tool": "apply", "arguments": {}}.
    """

    event_type = "decision.made"

    decision_id: Key = Field(description="the decision")
    session_id: Key = Field(description="the session in which it was made")
    decision_type: Label = Field(description="the kind of decision, such as tool_choice")
    input_context: JsonObject | None = Field(None, description="what the agent knew")
    decision_rationale: Text | None = Field(None, description="why it decided so, in words")
    action_taken: JsonObject | None = Field(None, description="what it did")
    confidence_score: Share | None = Field(None, description="how sure it was, from 0 to 1")
    user_feedback: Feedback | None = Field(None, description="what a person thought of it")
    execution_time_ms: Milliseconds | None = Field(None, description="how long it took")


class DecisionReviewed(EventData):
    """A person said what they think of a decision. Sets user_feedback; the newest review counts.

    `by` and `comment` stay in `lifecycle_events.data`.
    """

    event_type = "decision.reviewed"

    decision_id: Key = Field(description="the decision")
    user_feedback: Feedback = Field(description="what the person thinks of it")
    by: Name | None = Field(None, description="who reviewed it")
    comment: Text | None = Field(None, description="in their words")


class TrustMeasured(EventData):
    """How far an agent can be trusted was measured. One row in `trust_metrics`.

    The idempotency key is metric_id, else the event's id.
    metric_value is 0 to 100 for accuracy and autonomy (per cent), 0 to 10 for complexity; two decimal places.
    `measurement_context` is an object of the publisher's own making: what was measured, and how.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"metric_type": {"enum": of}, "metric_value": {"maximum": most}}}
                for most, of in _METRICS_UP_TO.items()
            ]
        }
    )

    event_type = "trust.measured"
    key_fields = ("metric_id",)

    session_id: Key = Field(description="the session")
    metric_type: Literal["accuracy", "autonomy", "complexity"] = Field(
        description="what was measured"
    )
    metric_value: MetricValue = Field(description="how much of it")
    metric_id: Key | None = Field(None, description="the measurement's own key")
    measurement_context: JsonObject | None = Field(None, description="what was measured, and how")
    created_at: Timestamp | None = Field(
        None, description="when it was measured; the event's time where absent"
    )

    @model_validator(mode="after")
    def _is_within_its_range(self) -> Self:
        most = next(most for most, of in _METRICS_UP_TO.items() if self.metric_type in of)
        if self.metric_value > most:
            raise PydanticCustomError(
                "metric_out_of_range",
                "a value of {metric_type} must be at most {most}",
                {"metric_type": self.metric_type, "most": most},
            )
        return self


CONTRACTS = (DecisionMade, DecisionReviewed, TrustMeasured)
"""All of this module, in the order in which documents tell of them."""
