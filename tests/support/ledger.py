"""The ledger that ends every fault test: what the broker confirmed to a publisher against tables, dead letters and confirmations."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from contracts import Event
from support.broker import Client
from support.tables import rows


@dataclass
class Ledger:
    """What was published and confirmed by the broker, and what came back."""

    published: list[Event] = field(default_factory=list)
    confirmed: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)

    async def publish(self, agent: Client, events: Iterable[Event]) -> None:
        for event in events:
            await agent.publish(event)
            self.published.append(event)

    async def hear(self, agent: Client) -> None:
        """Wait until every published message has been confirmed at least once."""
        wanted = {str(event.id) for event in self.published}
        while not wanted <= self.confirmed.keys():
            for outcome, items in (await agent.confirmed(1)).items():
                self.outcomes[outcome] += len(items)
                self.confirmed.update(item["id"] for item in items)

    async def balance(self, url: str) -> None:
        """Every message is in its table exactly once, none is a dead letter, nothing else is there, nothing waits."""
        wanted = Counter(str(event.id) for event in self.published)
        found = await rows(
            url,
            "SELECT event_id::text FROM execution_logs UNION ALL SELECT event_id::text FROM lifecycle_events "
            "UNION ALL SELECT event_id::text FROM trajectories",
        )
        stored = Counter(row["event_id"] for row in found)
        assert not set(wanted) - set(stored), "lost"
        assert not set(stored) - set(wanted), "from nowhere"
        assert max(stored.values()) == 1, "doubled"
        [letters] = await rows(url, "SELECT count(*) AS n FROM dead_letters")
        assert letters["n"] == 0, "dead letters without a bad message"
        [waiting] = await rows(url, "SELECT count(*) AS n FROM outbox")
        assert waiting["n"] == 0, "confirmations that were never sent"
