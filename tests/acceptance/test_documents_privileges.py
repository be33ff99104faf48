"""Roles and users with the grants and permissions of operations.md: they can do their work, and no more."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aio_pika
import asyncpg
import pytest
from pydantic import SecretStr
from support.archives import add_past_month, fingerprint, make_session, months_ago, talk
from support.broker import client
from support.commands import command
from support.documents import OPERATIONS, blocks_of, commands
from support.events import created, logged
from support.tables import connected, count, rows
from support.workers import drain, running_worker

from contracts.client import Publisher
from contracts.identifiers import uuid7
from contracts.task_lifecycle import TaskCreated
from worker.sandbox import SandboxError


def _sql(*words: str) -> str:
    """The one block of SQL in operations that holds all of these words."""
    found = [
        block.text
        for block in blocks_of(OPERATIONS, "sql")
        if all(word in block.text for word in words)
    ]
    assert len(found) == 1, words
    return found[0]


def _unless_there(statement: re.Match[str]) -> str:
    """The group roles are the server's: another database may have brought them."""
    return f"DO $$ BEGIN {statement[0]} EXCEPTION WHEN duplicate_object THEN NULL; END $$;"


class Roles:
    """The roles of the documents, under names that are nobody else's, in a database of their own."""

    def __init__(self, superuser: str) -> None:
        self.superuser = superuser
        self.prefix = f"agents{os.getpid()}_"

    def named(self, sql: str) -> str:
        sql = re.sub(r"\b(?:agents|acme)_(?=owner|worker|operator|reader)", self.prefix, sql)
        return re.sub(r"CREATE ROLE worker_\w+;", _unless_there, sql)

    def url(self, role: str) -> str:
        parts = urlsplit(self.superuser)
        place = f"{self.prefix}{role}:secret@{parts.hostname}:{parts.port}"
        return urlunsplit(parts._replace(netloc=place))

    async def run(self, sql: str, role: str | None = None) -> None:
        url = self.url(role) if role else self.superuser
        connection = await asyncpg.connect(url.replace("+asyncpg", ""))
        try:
            await connection.execute(self.named(sql))
        finally:
            await connection.close()


@pytest.fixture
async def roles(postgres, empty_database_url):
    """Made as operations.md says; the database is dropped before them."""
    made = Roles(empty_database_url)
    [me] = await rows(
        empty_database_url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
    )
    if not me["rolsuper"]:
        pytest.skip("only a superuser makes roles")
    await made.run(_sql("CREATE ROLE agents_owner"))
    for name in ("owner", "worker", "operator"):
        await made.run(f"ALTER ROLE agents_{name} PASSWORD 'secret'")
    yield made
    for name in ("owner", "worker", "operator", "reader"):
        await made.run(f"DROP OWNED BY agents_{name} CASCADE")
        await made.run(f"DROP ROLE agents_{name}")


async def test_roles_with_these_grants_can_do_their_work_and_no_more(roles, settings, tmp_path):
    """The owner migrates and maintains, the worker stores, the operator mends; a fact cannot be changed."""

    async def run(role, *arguments, code=0):
        places = {
            "DATABASE_URL": roles.url(role),
            "AMQP_URL": settings.broker,
            "WORKER_HTTP_PORT": "0",
        }
        done = await asyncio.to_thread(command, *arguments, **places)
        assert done.code == code, done.err or done.out
        return done

    await run("owner", "migrate")
    found = (await run("worker", "doctor", "--json", code=2)).json  # fsync is off in tests
    assert {one["check"] for one in found if one["level"] == "mend"} == {"durability"}
    assert {one["level"] for one in found if one["check"] == "tenancy"} == {"ok"}

    as_worker = settings.model_copy(update={"database_url": SecretStr(roles.url("worker"))})
    async with client(settings.broker) as agent:
        await agent.publish(created(), logged(), logged(tenant="acme"), b"not JSON")
    await drain(as_worker)
    assert await count(roles.superuser, "tasks") == 3
    await _read_as_a_tenant(roles)
    for sql in (
        "UPDATE execution_logs SET action = ''",
        "DELETE FROM tasks",
        "DROP TABLE tasks",
        "SELECT password_hash FROM users",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await roles.run(sql, "worker")

    await run("worker", "seed", "prod")
    await _use_as_operator(run, settings)
    await roles.run(_sql("FROM orphans", "FROM outbox"), "operator")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await roles.run("DELETE FROM dead_letters", "operator")

    await run("owner", "maintain")
    await roles.run(_sql("DELETE FROM dead_letters"), "owner")
    await _retire_a_month(roles, tmp_path)


async def _read_as_a_tenant(roles):
    """A login role for a tenant, as operations.md makes it, reads what is the tenant's."""
    *made, bound, _ = _sql("CREATE ROLE acme_reader").split(";")
    await roles.run(";".join([*made, "ALTER ROLE acme_reader PASSWORD 'secret'"]))
    await roles.run(bound, "owner")
    for table in ("tasks", "execution_logs"):
        assert await count(roles.url("reader"), table) == 1
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await roles.run("SELECT * FROM dead_letters", "reader")


async def _use_as_operator(run, settings):
    await _queue_with_one(settings.broker, "old.dead-letters")
    await run("operator", "status")
    await run("operator", "dead-letters", "list")
    await run("operator", "reconcile", "--wait", "0")
    await run("operator", "report", "failed-tasks")
    await run("operator", "dead-letters", "replay", "--limit", "1")
    await run("operator", "dead-letters", "import", "--queue", "old.dead-letters")
    await run("operator", "dead-letters", "discard", "--yes")


async def _retire_a_month(roles, folder):
    """The owner retires a month and brings it back, which nobody else can."""

    async def run(role, *arguments):
        places = {"DATABASE_URL": roles.url(role), "WORKER_ARCHIVE": str(folder)}
        return await asyncio.to_thread(command, *arguments, **places)

    month = months_ago(6)
    async with connected(roles.url("owner")) as db:
        await make_session(db)
        await add_past_month(db, "conversation_history", month)
        await talk(db, month, 3)
        before = await fingerprint(db, "conversation_history")
        for role, code in (("worker", 2), ("operator", 2), ("owner", 0)):
            assert (await run(role, "maintain")).code == code
        assert await db.fetchval("SELECT count(*) FROM conversation_history") == 0
        restore = ("archive", "restore", "conversation_history", str(month))
        assert (await run("worker", *restore)).code == 2
        assert (await run("owner", *restore)).code == 0
        assert await fingerprint(db, "conversation_history") == before


@pytest.fixture
def broker_users(rabbitmq):
    """The users of operations.md in a virtual host of their own; a function from a user to its URL."""
    vhost = f"documents-{os.getpid()}"

    hosts = {"agents": vhost, "torture": f"{vhost}-torture"}

    def named(word):
        return f"{vhost}.{word}" if word.startswith("agents-") else hosts.get(word, word)

    users = []
    try:
        for told in commands():
            if told.words[0] != "rabbitmqctl":
                continue
            words = [named(word) for word in told.words[1:]]
            if words[0] == "add_user":
                users.append(words[1])
                words.append("secret")
            rabbitmq.control(*words)
    except SandboxError as error:
        pytest.skip(f"rabbitmqctl cannot be run here: {error}")
    address = rabbitmq.address
    yield (
        lambda user: (
            f"{address.scheme}://{vhost}.{user}:secret@{address.host}:{address.port}/{vhost}"
        )
    )
    for user in users:
        rabbitmq.control("delete_user", user)
    for host in hosts.values():
        rabbitmq.control("delete_vhost", host)


@pytest.mark.slow
async def test_users_with_these_permissions_can_do_their_work_and_no_more(broker_users, settings):
    """Setup declares, the worker works, publishers publish and hear, readers listen, operators replay."""

    async def run(user, *arguments, code=0):
        places = {
            "DATABASE_URL": settings.database,
            "AMQP_URL": broker_users(user),
            "WORKER_HTTP_PORT": "0",
        }
        done = await asyncio.to_thread(command, *arguments, **places)
        assert done.code == code, done.err or done.out
        return done

    with pytest.raises(AssertionError, match=r"ACCESS_REFUSED|refused"):
        await run("agents-worker", "topology", "apply")
    await run("agents-setup", "topology", "apply")
    await run("agents-setup", "topology", "apply")
    found = (await run("agents-worker", "doctor", "--json", code=2)).json
    assert {one["check"] for one in found if one["level"] == "mend"} == {"durability"}

    as_worker = settings.model_copy(update={"amqp_url": SecretStr(broker_users("agents-worker"))})
    async with (
        running_worker(as_worker),
        _heard(broker_users("agents-reader")) as heard,
        Publisher(broker_users("agents-publisher"), source="/agents/tester") as publisher,
    ):
        event = publisher.event(TaskCreated(task_id=uuid7(), request_text="try"))
        assert await publisher.persisted(event) == "persisted"
        assert b"persistence.confirmed" in (await asyncio.wait_for(heard.get(), 20))
        with pytest.raises(aio_pika.exceptions.ChannelClosed):
            await _purge(broker_users("agents-publisher"), "worker.task-lifecycle")
    await run("agents-operator", "status")
    await run("agents-operator", "dead-letters", "replay", "--all")
    await run(
        "agents-operator", "dead-letters", "import", "--queue", "worker.unrouted.dead-letters"
    )


async def _purge(url: str, queue: str) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await (await channel.get_queue(queue, ensure=False)).purge()


@asynccontextmanager
async def _heard(url: str) -> AsyncIterator["asyncio.Queue[bytes]"]:
    """Confirmations as a reader hears them."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(message: Any) -> None:
        heard.put_nowait(message.body)

    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("reader.test", exclusive=True)
        await queue.bind("agent.confirmations", "#")
        await queue.consume(take, no_ack=True)
        yield heard


async def _queue_with_one(amqp_url: str, name: str) -> None:
    """A queue of somebody else's, with a message in it."""
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(name, durable=True)
        await channel.default_exchange.publish(aio_pika.Message(logged().to_json()), queue.name)
