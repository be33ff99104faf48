"""PostgreSQL ends transactions that it finds idle: the batch waits, is tried again, and nothing is a dead letter."""

from support.broker import client
from support.faults import by_way_of
from support.ledger import Ledger
from support.proxy import proxy_before
from support.tables import rows
from support.traffic import elapse, traffic
from support.verdicts import everything_is_accounted_for
from support.waiting import until
from support.workers import running_worker

_LIMIT = """
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET idle_in_transaction_session_timeout = {}', current_database()); END $$"""


async def test_idle_transactions_that_are_killed_are_tried_again(settings, postgres):
    """A slow network makes every transaction idle for longer than it may be; with another limit all of them land."""
    ledger = Ledger()
    async with proxy_before(settings.database) as (proxy, url), client(settings.broker) as agent:
        async with running_worker(by_way_of(settings, database_url=url, statement_timeout=5)):
            await rows(settings.database, _LIMIT.format(20))
            proxy.cut()  # a limit holds for connections that are made after it
            proxy.slow(10_000)
            async with traffic(agent, ledger, every=0.1):
                await until(lambda: _killed(postgres))
                await elapse(1)
            await rows(settings.database, _LIMIT.format("0"))
            await proxy.heal()
            proxy.cut()
            await ledger.hear(agent)
        await everything_is_accounted_for(ledger, settings)


def _killed(postgres) -> bool:
    return postgres.log.read_text().count("idle-in-transaction timeout") >= 3
