"""What is acknowledged, and when: only what is committed, whatever stands beside it."""

import signal

from support.broker import client
from support.events import created, logged
from support.ledger import Ledger
from support.letters import broker
from support.locks import foreign_log, holding, waiting
from support.tables import count, rows
from support.waiting import until
from support.workers import drain, worker_process

from contracts.identifiers import uuid7
from worker.broker import topology

QUEUE = topology.queue_name("execution-log")


async def test_a_later_batch_that_commits_first_acknowledges_nothing_of_an_earlier_one(settings):
    """Two transactions in flight, the first held up by a lock: the worker is killed, and all of the first comes again."""
    ledger = Ledger()
    tens = settings.model_copy(update={"batch_messages": 10, "outbox_sweep_after": 0.5})
    task, first = uuid7(), uuid7()
    async with client(settings.broker) as agent:
        await ledger.publish(agent, [created(task)])
        await drain(tens)
        await ledger.hear(agent)
        await ledger.publish(agent, [logged(task, log_id=first)])
        await ledger.publish(agent, [logged(task) for _ in range(29)])
        async with (
            holding(settings.database, foreign_log(first, task)),
            worker_process(tens, WORKER_NAME="test-worker", WORKER_BATCH_MESSAGES="10") as doomed,
        ):
            await waiting(settings.database)

            async def only_the_first_is_left() -> bool:
                """What is stored is confirmed, and so acknowledged; that is twenty or more of thirty."""
                stored = await count(settings.database, "execution_logs")
                confirmed = agent.confirmations.qsize()
                transactions = await rows(settings.database, "SELECT 1 FROM outbox")
                return stored >= 20 and confirmed > 0 and not transactions

            await until(only_the_first_is_left)
            doomed.signal(signal.SIGKILL)
            await doomed.ended()
            stored = await count(settings.database, "execution_logs")
            assert stored < 30
            await until(lambda: _waits(settings, 30 - stored))
        await drain(tens)
        await ledger.hear(agent)
    await ledger.balance(settings.database)


async def _waits(settings, number: int) -> bool:
    """Whether so many messages wait to be delivered."""
    async with broker(settings) as connection:
        return await topology.message_count(connection, QUEUE) == number
