"""A worker that is told to stop while PostgreSQL does not answer."""

from support.broker import client
from support.events import logged
from support.letters import waiting
from support.tables import connected, count
from support.waiting import until
from support.workers import drain, running_worker


async def test_what_could_not_be_stored_goes_back_to_its_queue(settings):
    """A table is locked until the worker has stopped: its messages wait in the queue, and the next worker stores them."""
    hasty = settings.model_copy(update={"statement_timeout": 0.3})
    async with client(settings.broker) as agent, connected(settings.database) as other:
        async with other.transaction():
            await other.execute("LOCK TABLE execution_logs IN ACCESS EXCLUSIVE MODE")
            async with running_worker(hasty) as worker:
                await agent.publish(*(logged() for _ in range(20)))
                await until(lambda: worker.app.attachment.in_hand == 20)
        await waiting(settings, "worker.execution-log", 20)
        assert await count(settings.database, "execution_logs") == 0
        await drain(settings)
        assert len((await agent.confirmed(20))["persisted"]) == 20
    assert await count(settings.database, "execution_logs") == 20
    assert await count(settings.database, "dead_letters") == 0
