"""PostgreSQL ends transactions that it finds idle: the batch waits, is tried again, and nothing is a dead letter."""

from support.broker import client
from support.faults import by_way_of
from support.ledger import Ledger
from support.proxy import proxy_before
from support.traffic import elapse, traffic
from support.verdicts import everything_is_accounted_for
from support.waiting import until
from support.workers import running_worker

from worker.store import database


async def test_idle_transactions_that_are_killed_are_tried_again(settings, postgres, monkeypatch):
    """A slow network makes every transaction idle for longer than it may be; on a quick one all of them land."""
    monkeypatch.setattr(database, "_IDLE_TIMES", 0.02)  # of five seconds: a tenth of a second
    ledger = Ledger()
    before = _killed(postgres)
    async with proxy_before(settings.database) as (proxy, url), client(settings.broker) as agent:
        async with running_worker(by_way_of(settings, database_url=url, statement_timeout=5)):
            proxy.slow(10_000)
            async with traffic(agent, ledger, every=0.1):
                await until(lambda: _killed(postgres) >= before + 3)
                await elapse(1)
            await proxy.heal()
            proxy.cut()
            await ledger.hear(agent)
        await everything_is_accounted_for(ledger, settings)


def _killed(postgres) -> int:
    return postgres.log.read_text().count("idle-in-transaction timeout")
