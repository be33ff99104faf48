"""What is still in the queues after the last worker has drained them: each message there is stuck."""

from contracts.registry import families
from worker.broker import topology
from worker.broker.connection import connect
from worker.settings import Settings
from worker.torture.verdict import Verdict


async def charge_what_waits(settings: Settings, verdict: Verdict) -> None:
    """Charge every message of every queue of the wire."""
    connection = await connect(settings.broker, name=settings.name)
    try:
        for queue in topology.topology(families().values()).queues:
            waiting = await topology.message_count(connection, queue.name)
            if waiting:
                verdict.charge("stuck", f"{waiting:,} messages in {queue.name}", waiting)
    finally:
        await connection.close()
