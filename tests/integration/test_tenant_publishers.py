"""Publishers that RabbitMQ authenticates per tenant: what claims another's tenant is a dead letter, on a real broker."""

import asyncio

import aio_pika
import pytest
from support.broker import client
from support.commands import command
from support.events import created, logged
from support.tables import count, rows
from support.workers import drain, running_worker

from contracts.client import Publisher, Rejected


@pytest.fixture
def guarded(settings):
    """Settings of a worker that knows our user as acme's."""
    user = settings.model_copy(update={"tenant_of_user": "x"}).publishing_user
    return settings.model_copy(update={"tenant_of_user": f"agents-{{tenant}},{user}=acme"})


async def test_a_message_that_claims_anothers_tenant_is_a_dead_letter(guarded):
    """So is one whose publisher is unknown; of a batch only the stranger; the broker lets nobody use another's name."""
    user = guarded.publishing_user
    async with client(guarded.broker) as agent:
        await agent.publish(created(tenant="acme"), created(tenant="bee"), user_id=user)
        await agent.publish(created(tenant="acme"))
        batch = [logged(tenant="acme"), logged(tenant="bee")]
        await agent.publish_batch(batch, "execution.logged", user_id=user)
        with pytest.raises(aio_pika.exceptions.ChannelClosed, match="user_id"):
            await agent.publish(created(tenant="bee"), user_id="agents-bee")
    await drain(guarded)
    stored = await rows(
        guarded.database,
        "SELECT tenant_id FROM lifecycle_events UNION ALL SELECT tenant_id FROM execution_logs",
    )
    assert [row["tenant_id"] for row in stored] == ["acme", "acme"]
    letters = await rows(
        guarded.database,
        "SELECT tenant_id, reason, errors #>> '{0,loc,0}' AS place, batch_index FROM dead_letters"
        " ORDER BY batch_index NULLS FIRST",
    )
    assert [tuple(letter.values()) for letter in letters] == [
        (None, "invalid", "tenantid", None),
        (None, "invalid", "tenantid", None),
        (None, "invalid", "tenantid", 1),
    ]


async def test_publisher_and_commands_name_their_user(guarded, tmp_path):
    """The client says who it is where it is told to, and hears of the refusal; a file and a replay are taken."""
    user = guarded.publishing_user
    async with running_worker(guarded), Publisher(guarded.broker, user_id=user) as publisher:
        assert await publisher.persisted(created(tenant="acme")) == "persisted"
        with pytest.raises(Rejected, match="may not publish for the tenant 'bee'"):
            await publisher.persisted(created(tenant="bee"))
    places = {
        "DATABASE_URL": guarded.database,
        "AMQP_URL": guarded.broker,
        "WORKER_TENANT_OF_USER": f"{user}=*",
    }
    file = tmp_path / "events.jsonl"
    file.write_bytes(created(tenant="cee").to_json() + b"\n")
    for words in (("publish", str(file)), ("dead-letters", "replay", "--all")):
        done = await asyncio.to_thread(command, *words, **places)
        assert done.code == 0, done.err
    await drain(guarded.model_copy(update={"tenant_of_user": f"{user}=*"}))
    assert await count(guarded.database, "tasks") == 3
