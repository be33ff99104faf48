"""The ledger that ends every fault test: what the broker confirmed to a publisher against tables, dead letters and confirmations."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from contracts import Event
from support.broker import Client
from support.tables import rows

_STORED = (
    "SELECT event_id::text, tenant_id FROM execution_logs UNION ALL "
    "SELECT event_id::text, tenant_id FROM lifecycle_events UNION ALL "
    "SELECT event_id::text, tenant_id FROM trajectories UNION ALL "
    "SELECT event_id::text, tenant_id FROM task_dependencies UNION ALL "
    "SELECT event_id::text, tenant_id FROM policy_checkpoints UNION ALL "
    "SELECT event_id::text, tenant_id FROM dag_edges UNION ALL "
    "SELECT event_id::text, tenant_id FROM checkpoints UNION ALL "
    "SELECT event_id::text, tenant_id FROM messages UNION ALL "
    "SELECT event_id::text, tenant_id FROM cost_records UNION ALL "
    "SELECT event_id::text, tenant_id FROM branches UNION ALL "
    "SELECT event_id::text, tenant_id FROM workflow_metrics UNION ALL "
    "SELECT event_id::text, tenant_id FROM files UNION ALL "
    "SELECT event_id::text, tenant_id FROM metrics"
)
_FOLDED = """
WITH entities AS (
    SELECT 'task' AS type, task_id::text AS id, tenant_id, version FROM tasks UNION ALL
    SELECT 'training_job', job_id::text, tenant_id, version FROM training_jobs UNION ALL
    SELECT 'workspace', id::text, tenant_id, version FROM sessions UNION ALL
    SELECT 'project', id::text, tenant_id, version FROM projects UNION ALL
    SELECT 'run', id::text, tenant_id, version FROM workflow_runs UNION ALL
    SELECT 'step', id::text, tenant_id, version FROM workflow_steps UNION ALL
    SELECT 'dag_node', id::text, tenant_id, version FROM dag_nodes UNION ALL
    SELECT 'approval_request', id::text, tenant_id, version FROM approval_requests
), told AS (
    SELECT entity_type AS type, entity_id AS id, tenant_id, count(*) AS events FROM lifecycle_events GROUP BY 1, 2, 3
)
SELECT type, id, coalesce(version, -1) AS version, coalesce(events, 0) AS events
FROM entities FULL JOIN told USING (type, id, tenant_id) WHERE version IS DISTINCT FROM coalesce(events, 0)"""


@dataclass
class Refused:
    """A message that must end as a dead letter: its whole body, and why. `resolution` says how the letter has to end."""

    body: bytes
    reason: str
    id: str | None
    resolution: str | None = None


@dataclass
class Ledger:
    """What was published and confirmed by the broker, and what came back."""

    published: list[Event] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    confirmed: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    said: defaultdict[str | None, Counter[str]] = field(
        default_factory=lambda: defaultdict(Counter)
    )
    """Of each message id (None: could not be read), how often which outcome was said."""

    async def publish(self, agent: Client, events: Iterable[Event], **properties: Any) -> None:
        """Publish messages that must be stored, one each; each counts once the broker has confirmed it."""
        for event in events:
            await agent.publish(event, **properties)
            self.published.append(event)

    async def publish_batch(self, agent: Client, events: Iterable[Event], key: str) -> None:
        """Publish messages that must be stored, all in one body."""
        events = list(events)
        await agent.publish_batch(events, key)
        self.published += events

    async def publish_bad(
        self, agent: Client, body: bytes, reason: str, key: str, **properties: Any
    ) -> None:
        """Publish a body that must end as a dead letter for this reason."""
        await agent.publish_raw(body, key, **properties)
        self.expect_letter(body, reason)

    def expect_letter(self, body: bytes, reason: str) -> Refused:
        """A body that the broker has, and that must end as a dead letter for this reason."""
        refused = Refused(body, reason, _id(body))
        self.refused.append(refused)
        return refused

    async def hear(self, agent: Client) -> None:
        """Wait until every published message has been confirmed at least once."""
        wanted = {str(event.id) for event in self.published}
        refused = sum(
            bad.resolution is None for bad in self.refused
        )  # the others came to be stored
        while not (wanted <= self.confirmed.keys() and self._rejections() >= refused):
            for outcome, items in (await agent.confirmed(1)).items():
                self.outcomes[outcome] += len(items)
                self.confirmed.update(item["id"] for item in items if outcome != "rejected")
                for item in items:
                    self.said[item["id"]][outcome] += 1

    def _rejections(self) -> int:
        return sum(said["rejected"] for said in self.said.values())

    async def balance(self, url: str) -> None:
        """Every message is in its table exactly once or a dead letter exactly once, told of as what it is.

        Nothing else is there, every entity was folded from each of its messages once, and no confirmation waits.
        """
        await self._balance_tables(url)
        await self._balance_letters(url)
        self._balance_confirmations()
        assert await rows(url, _FOLDED) == [], "entities that do not hold each message once"
        [waiting] = await rows(url, "SELECT count(*) AS n FROM outbox")
        assert waiting["n"] == 0, "confirmations that were never sent"

    async def _balance_tables(self, url: str) -> None:
        wanted = Counter((str(event.id), event.tenantid) for event in self.published)
        found = await rows(url, _STORED)
        stored = Counter((row["event_id"], row["tenant_id"]) for row in found)
        assert not set(wanted) - set(stored), "lost"
        assert not set(stored) - set(wanted), "from nowhere"
        assert max(stored.values(), default=1) == 1, "doubled"

    async def _balance_letters(self, url: str) -> None:
        found = await rows(url, "SELECT body, reason, resolution FROM dead_letters")
        letters = Counter((row["body"], row["reason"], row["resolution"]) for row in found)
        wanted = {(bad.body, bad.reason, bad.resolution) for bad in self.refused}
        missing = wanted - set(letters)
        assert not missing, f"refused, and no dead letter tells of it: {_short(missing)}"
        strangers = set(letters) - wanted
        assert not strangers, f"dead letters without a bad message: {_short(strangers)}"
        assert max(letters.values(), default=1) == 1, "doubled dead letters"

    def _balance_confirmations(self) -> None:
        """Only where they were listened to: `persisted` for what was published once, `rejected` for what was refused."""
        if not self.said:
            return
        published = Counter(str(event.id) for event in self.published)
        refused = {bad.id for bad in self.refused}
        for message, said in self.said.items():
            known = message in published or message in refused or message is None
            assert known or not said, f"told of nobody's message: {message}"
            if message in published and message not in refused:
                assert not said["rejected"], f"stored, and called rejected: {message}"
            if message in published:
                assert said["persisted"], f"stored, and never called so: {message} {said}"
            if message in refused and message not in published:
                assert not said["persisted"] + said["duplicate"], f"refused, called safe: {message}"


def _short(letters: set[tuple[bytes, str, str | None]]) -> list[tuple[bytes, str, str | None]]:
    return [(body[:200], reason, resolution) for body, reason, resolution in list(letters)[:5]]


def _id(body: bytes) -> str | None:
    """The id that the worker can read in a body."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    identity = found.get("id") if isinstance(found, dict) else None
    return identity if isinstance(identity, str) else None
