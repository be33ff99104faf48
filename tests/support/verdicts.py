"""The verdict over a worker that has ended: the ledger balances, what is stored is what was published, nothing waits."""

import json

from contracts import Event, registry
from support.ledger import Ledger
from support.tables import rows
from support.waiting import until
from worker.broker import topology
from worker.broker.connection import connect
from worker.decode import digest
from worker.settings import Settings

_DIGESTS = " UNION ALL ".join(
    f"SELECT event_id::text AS id, content_digest AS digest FROM {table}"
    for table in ("execution_logs", "lifecycle_events", "trajectories", "policy_checkpoints")
)


async def everything_is_accounted_for(ledger: Ledger, settings: Settings) -> None:
    """The ledger balances, stored content is published content, no queue holds a message, nobody is under suspicion."""
    await ledger.balance(settings.database)
    found = await rows(settings.database, _DIGESTS)
    stored = {row["id"]: row["digest"] for row in found}
    assert stored == {str(event.id): _digest(event) for event in ledger.published}, "altered"
    assert await rows(settings.database, "SELECT digest FROM suspects WHERE attempts > 0") == []
    await queues_are_empty(settings.broker)


async def queues_are_empty(url: str) -> None:
    """Nothing is left in any queue of the wire; what a live worker has in hand is not seen."""
    connection = await connect(url, name="verdict")
    try:
        for queue in topology.topology(registry.families().values()).queues:
            assert await topology.message_count(connection, queue.name) == 0, queue.name
    finally:
        await connection.close()


async def outbox_is_empty(settings: Settings) -> None:
    """Wait until the running workers have swept what a commit whose answer was lost left behind."""

    async def empty() -> bool:
        [waiting] = await rows(settings.database, "SELECT count(*) AS n FROM outbox")
        return not waiting["n"]

    await until(empty)


def _digest(event: Event) -> bytes:
    """What the worker has to have stored of it."""
    return digest(event.type, event.tenantid, json.loads(event.to_json())["data"])
