"""Figures of the platform itself: the family `metric`."""

from typing import Annotated

from pydantic import Field

from contracts.envelope import EventData
from contracts.fields import JsonObject, Key, Real, Timestamp
from contracts.registry import ContractFamily


class MetricRecorded(EventData):
    """A figure was taken. One row in `metrics`; metric_id is the idempotency key, else the event's id.

    `tags` is an object of what to search by, such as {"host": "w-3", "queue": "worker.workflow"}.
    `metadata` is an object of anything else, of the publisher's own making.
    """

    event_type = "metric.recorded"
    key_fields = ("metric_id",)

    name: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        description="what was measured, such as queue.depth"
    )
    value: Real = Field(description="the figure")
    metric_id: Key | None = Field(None, description="the record's own key")
    tags: JsonObject | None = Field(None, description="what to search by")
    metadata: JsonObject | None = Field(None, description="anything else")
    timestamp: Timestamp | None = Field(
        None, description="when it was taken; the event's time where absent"
    )


FAMILY = ContractFamily("metric", ("metric.#",), (MetricRecorded,))
