"""What a stored message is called when it comes again."""

from support.events import created, decoded, logged
from support.tables import count

from worker.families import plan
from worker.store.database import Database
from worker.store.persist import Persister
from worker.store.writer import Writer


async def test_what_is_delivered_again_is_persisted_and_what_is_published_again_a_duplicate(
    database_url,
):
    """A redelivery means that the first confirmation may never have been sent: it must say persisted."""
    database = Database(database_url, name="test")
    persister = Persister(database, Writer(plan()), "task-lifecycle", "agent.replies.*")
    events = [created(), logged()]

    async def outcomes(**given) -> set[str]:
        return {
            one.outcome for one in (await persister.persist(decoded(*events, **given))).outcomes
        }

    assert await outcomes() == {"persisted"}
    assert await count(database_url, "execution_logs") == 1
    assert await outcomes() == {"duplicate"}
    assert await outcomes(redelivered=True) == {"persisted"}
    again = decoded(*events)
    for message in again:
        message.delivery.retried = True
    assert {one.outcome for one in (await persister.persist(again)).outcomes} == {"persisted"}
    assert await count(database_url, "execution_logs") == 1
    await database.close()
