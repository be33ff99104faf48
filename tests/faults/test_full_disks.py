"""PostgreSQL has no disk space left: a backlog that resolves when there is some again, and never a dead letter."""

import re

from support.broker import client
from support.events import logged
from support.faults import by_way_of
from support.ledger import Ledger
from support.standby import small_disk
from support.verdicts import everything_is_accounted_for
from support.waiting import until
from support.workers import running_worker

from worker.telemetry import exposition


def unavailable() -> float:
    """How often a transaction had to be tried again so far."""
    found = re.search(
        rb'worker_transactions_total{family="execution-log",result="unavailable"} (\S+)',
        exposition(),
    )
    return float(found[1]) if found else 0


async def test_a_full_disk_makes_a_backlog(settings, postgres):
    """Messages wait, unacknowledged, while every transaction fails for want of space; then all of them land."""
    ledger = Ledger()
    with small_disk(postgres, settings.database) as disk:
        here = by_way_of(settings, database_url=disk.url)
        async with client(settings.broker) as agent, running_worker(here) as worker:
            disk.fill()
            before = unavailable()
            await ledger.publish(agent, [logged(output_full="x" * 30_000) for _ in range(60)])
            await until(lambda: unavailable() > before + 3)
            assert worker.app.attachment.in_hand > 0
            assert not worker.app.attachment.absent
            disk.free()
            await ledger.hear(agent)
        await everything_is_accounted_for(ledger, here)
