"""What a stored message is called when it comes again."""

import orjson
import pytest
from support.events import created, decoded, logged
from support.tables import count, rows

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


OUTPUTS = [None, "null", "", 0, 0.5, False, [], {}, [None], {"a": {"b": [1, "x", None]}}, "\u2400"]


@pytest.mark.parametrize("size", [10, 5_000])
async def test_json_is_stored_as_it_was_said_however_large_its_neighbours_are(size, database_url):
    """Where events are large their JSON travels another way, and says the same: nothing is not the text null."""
    database = Database(database_url, name="test")
    persister = Persister(database, Writer(plan()), "execution-log", "agent.replies.*")
    events = [logged(action="x" * size, output_full=output) for output in OUTPUTS]
    await persister.persist(decoded(*events))
    found = await rows(
        database_url, "SELECT event_id, output_full::text AS said FROM execution_logs"
    )
    said = {row["event_id"]: row["said"] for row in found}
    texts = [said[event.id] and orjson.dumps(orjson.loads(said[event.id])) for event in events]
    assert texts == [None, *map(orjson.dumps, OUTPUTS[1:])]  # as text: False is no 0
    await database.close()
