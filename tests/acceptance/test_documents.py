"""Every command in the documents is run, in its quick or its help form; every grant and permission is tried.

A command that nothing here knows how to run fails, with the document and the line, so that documents cannot rot.
"""

import asyncio
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aio_pika
import asyncpg
import pytest
import typer.main
from pydantic import SecretStr
from support.broker import client
from support.commands import command
from support.documents import (
    OPERATIONS,
    ROOT,
    Command,
    blocks_of,
    commands,
    documents,
    inline_code,
)
from support.engine import docker, needs_engine
from support.events import created, logged
from support.tables import count, rows
from support.workers import drain, running_worker

from contracts.client import Publisher
from contracts.identifiers import uuid7
from contracts.task_lifecycle import TaskCreated
from worker import cli
from worker.health import application
from worker.sandbox import SandboxError
from worker.settings import Settings, environment_name
from worker.store.partitions import Month

LETTER = "3f2a9c1e"
"""The id that stands in the documents; the tests put that of a real letter in its place."""

LONG = ("run", "demo")
"""Commands that are tried in their help form."""

_POSTGRES_VARIABLES = {"PGSSLROOTCERT", "PGSSLMODE", "PGSSLCERT", "PGSSLKEY"}


@pytest.fixture
def places(database_url, amqp_url):
    return {"DATABASE_URL": database_url, "AMQP_URL": amqp_url, "WORKER_HTTP_PORT": "0"}


# --- commands ---


def _told_by(*programs: str) -> list[Any]:
    return [
        pytest.param(told, id=told.text[:60])
        for told in commands()
        if told.words and told.words[0] in programs
    ]


def test_every_command_in_a_document_is_known_here():
    """Or a test has to be written for it."""
    known = {"worker", "alembic", "make", "pip", "export", "sh", "curl", "docker", "pg_dump", "rabbitmqctl"}  # fmt: skip
    unknown = [
        f"{told.place}: {told.text}" for told in commands() if told.words[:1] and told.words[0] not in known
    ]  # fmt: skip
    assert not unknown


def _helped(words: list[str]) -> None:
    """The command exists and has these options; nothing is done."""
    done = command(*words, "--help")
    assert done.code == 0, done.err or done.out
    assert "Usage: worker" in done.out


@pytest.mark.parametrize("told", _told_by("worker"))
def test_worker_commands_run(told: Command, request, tmp_path, monkeypatch):
    """Against a real broker and a real database, but for those that go on for long."""
    words = told.words[1:]
    if words[0] in LONG or "--wait" in words:
        return _helped(words)
    places = request.getfixturevalue("places")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDITOR", "true")
    _prepare(words, request)
    done = command(*(_real(word, places) for word in words), **places)
    # The tests' database runs without fsync, which the doctor finds.
    expected = {0, 2} if words[0] == "doctor" else {0}
    assert done.code in expected, done.err or done.out
    assert "Traceback" not in done.err
    return None


def _prepare(words: list[str], request) -> None:
    """The letters, files and queues that a command tells of."""
    if words[0] == "dead-letters":
        asyncio.run(_make_letter(request.getfixturevalue("settings")))
        places = request.getfixturevalue("places")
        assert command("dead-letters", "export", "--output", "letters.jsonl", **places).code == 0
    if "--queue" in words:
        asyncio.run(
            _declare(request.getfixturevalue("amqp_url"), words[words.index("--queue") + 1])
        )
    if words[0] == "publish":
        lines = [created().to_json(), logged().to_json()]
        for name in (word for word in words if word.endswith(".jsonl")):
            with open(name, "wb") as file:  # noqa: PTH123 (in the folder of the test)
                file.write(b"\n".join(lines))


async def _make_letter(settings: Settings) -> None:
    """A letter that the edits of the documents mend."""
    broken = logged().model_dump(mode="json", exclude_none=True)
    broken["data"] |= {"step_number": -1, "surprise": True}
    body = logged().model_copy(update={"data": broken["data"]}).to_json()
    async with client(settings.broker) as agent:
        await agent.publish(body)
    await drain(settings)


async def _declare(amqp_url: str, queue: str) -> None:
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        declared = await channel.declare_queue(queue, durable=True)
        await channel.default_exchange.publish(aio_pika.Message(logged().to_json()), queue)
        assert declared.name == queue


def _real(word: str, places: dict[str, str]) -> str:
    if word != LETTER:
        return word
    listed = command("dead-letters", "list", "--json", **places).json
    return listed["letters"][0]["id"][:8]


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_worker_commands_in_running_text_exist(path):
    """With the options that are named; those with an ellipsis stand for several."""
    for code in inline_code(path):
        if code.startswith("worker ") and "…" not in code:
            _helped(code.split()[1:])


def test_every_command_of_the_worker_is_in_operations():
    """By its full name."""
    text = OPERATIONS.read_text()
    app = typer.Typer()
    for info in pkgutil.iter_modules(cli.__path__):
        module = importlib.import_module(f"{cli.__name__}.{info.name}")
        getattr(module, "register", lambda _: None)(app)
    for name in _names(typer.main.get_command(app), "worker"):
        assert re.search(rf"\b{name}\b", text), name


def _names(group: Any, name: str) -> list[str]:
    found = []
    for sub, one in group.commands.items():
        full = f"{name} {sub}"
        found += _names(one, full) if hasattr(one, "commands") else [full]
    return found


@pytest.mark.parametrize("told", _told_by("alembic"))
def test_alembic_commands_run(told: Command, empty_database_url):
    """As in a checkout."""
    done = subprocess.run(
        [sys.executable, "-m", *told.words],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": empty_database_url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--sql" not in told.words or "CREATE TABLE tasks" in done.stdout


@pytest.mark.parametrize("told", _told_by("make"))
def test_make_targets_exist(told: Command):
    """They take too long to be run here; CI runs them."""
    makefile = (ROOT / "Makefile").read_text()
    for target in told.words[1:]:
        assert "=" in target or re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("told", _told_by("pip"))
def test_what_is_installed_is_there_to_be_installed(told: Command):
    """Files and extras; nothing is downloaded."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert told.words[1] == "install"
    named = [word for word in told.words[2:] if not word.startswith("-")]
    for name in named:
        path, _, extras = name.rstrip("]").partition("[")
        assert (ROOT / path).exists(), told.place
        assert set(filter(None, extras.split(","))) <= set(project["optional-dependencies"])


@pytest.mark.parametrize("told", _told_by("export"))
def test_what_is_exported_is_a_setting(told: Command):
    """And its value is one that the worker takes."""
    name, _, value = told.words[1].partition("=")
    known = {environment_name(field): field for field in Settings.model_fields}
    if name in known:
        given = {"database_url": "postgresql://a/b", "amqp_url": "amqp://a", known[name]: value}
        settings = Settings.load(**given)
        assert "password" not in settings.database_place + settings.broker_place
    else:
        assert name in _POSTGRES_VARIABLES, told.place


@pytest.mark.parametrize("told", _told_by("sh"))
def test_shell_scripts_run(told: Command, tmp_path):
    """On a copy of the checkout's deploy/."""
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    done = subprocess.run(told.words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("told", _told_by("curl"))
def test_what_is_fetched_is_served(told: Command):
    """At the default port."""
    [url] = [word for word in told.words[1:] if word.startswith("http")]
    parts = urlsplit(url)
    assert parts.port == Settings.model_fields["http_port"].default
    assert parts.path in {route.path for route in application({}).routes}


@pytest.mark.parametrize("told", _told_by("pg_dump"))
def test_tools_of_postgresql_have_these_options(told: Command):
    """Where they are installed."""
    program = shutil.which(told.words[0])
    if program is None:
        pytest.skip("no client tools of PostgreSQL are installed")
    told_by_help = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
    for option in (word for word in told.words[1:] if word.startswith("--")):
        assert option in told_by_help.stdout, told.place


class TestContainers:
    """What needs a container engine; test_compose.py does the rest."""

    pytestmark = needs_engine

    @pytest.mark.parametrize("told", _told_by("docker"))
    async def test_docker_commands_exist_with_these_options(self, told: Command):
        words = told.words[1:]
        own = [word for word in words if not word.startswith("worker")]
        end = next((at for at, word in enumerate(own) if word == "agent-persistence"), len(own))
        await docker(*own[:end], "--help")

    async def test_the_compose_file_is_valid(self):
        secrets = {"POSTGRES_PASSWORD": "x", "RABBITMQ_PASSWORD": "x"}
        await docker("compose", "--project-directory", str(ROOT), "config", "--quiet", **secrets)


# --- least privilege ---


def _sql(*words: str) -> str:
    """The one block of SQL in operations that holds all of these words."""
    found = [
        block.text
        for block in blocks_of(OPERATIONS, "sql")
        if all(word in block.text for word in words)
    ]
    assert len(found) == 1, words
    return found[0]


class Roles:
    """The roles of the documents, under names that are nobody else's, in a database of their own."""

    def __init__(self, superuser: str) -> None:
        self.superuser = superuser
        self.prefix = f"agents{os.getpid()}_"

    def named(self, sql: str) -> str:
        return re.sub(r"\bagents_(?=owner|worker|operator)", self.prefix, sql)

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
    await made.run(_sql("CREATE ROLE"))
    for name in ("owner", "worker", "operator"):
        await made.run(f"ALTER ROLE agents_{name} PASSWORD 'secret'")
    yield made
    for name in ("owner", "worker", "operator"):
        await made.run(f"DROP OWNED BY agents_{name} CASCADE")
        await made.run(f"DROP ROLE agents_{name}")


async def test_roles_with_these_grants_can_do_their_work_and_no_more(roles, settings):
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
    await roles.run(_sql("GRANT SELECT ON ALL TABLES"), "owner")
    found = (await run("worker", "doctor", "--json", code=2)).json  # fsync is off in tests
    assert {one["check"] for one in found if one["level"] == "mend"} == {"durability"}

    as_worker = settings.model_copy(update={"database_url": SecretStr(roles.url("worker"))})
    async with client(settings.broker) as agent:
        await agent.publish(created(), logged(), logged(), b"not JSON")
    await drain(as_worker)
    assert await count(roles.superuser, "tasks") == 3
    for sql in ("UPDATE execution_logs SET action = ''", "DELETE FROM tasks", "DROP TABLE tasks"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await roles.run(sql, "worker")

    await _use_as_operator(run, settings)
    await roles.run(_sql("FROM orphans", "FROM outbox"), "operator")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await roles.run("DELETE FROM dead_letters", "operator")

    await run("owner", "maintain")
    await roles.run(_sql("DELETE FROM dead_letters"), "owner")
    await _retire_a_month(roles)


async def _use_as_operator(run, settings):
    await _declare(settings.broker, "old.dead-letters")
    await run("operator", "status")
    await run("operator", "dead-letters", "list")
    await run("operator", "dead-letters", "replay", "--limit", "1")
    await run("operator", "dead-letters", "import", "--queue", "old.dead-letters")
    await run("operator", "dead-letters", "discard", "--yes")


async def _retire_a_month(roles):
    """Detach, bring back into the default partition, drop; then `maintain` moves the rows."""

    def this_month(sql):
        return re.sub(r"execution_logs_y\d{4}m\d\d", month, sql)

    month = Month.of(datetime.now(UTC)).partition_of("execution_logs")
    before = await count(roles.superuser, "execution_logs")
    await roles.run(this_month(_sql("DETACH PARTITION")), "owner")
    assert await count(roles.superuser, "execution_logs") == 0
    await roles.run(this_month(_sql("INSERT INTO execution_logs")), "owner")
    await roles.run(this_month(_sql("DROP TABLE")), "owner")
    places = {"DATABASE_URL": roles.url("owner")}
    assert (await asyncio.to_thread(command, "maintain", **places)).code == 0
    assert await count(roles.superuser, month) == before


@pytest.fixture
def broker_users(rabbitmq):
    """The users of operations.md in a virtual host of their own; a function from a user to its URL."""
    vhost = f"documents-{os.getpid()}"

    def named(word):
        return (
            f"{vhost}.{word}" if word.startswith("agents-") else vhost if word == "agents" else word
        )

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
    rabbitmq.control("delete_vhost", vhost)


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

    with pytest.raises(AssertionError, match="ACCESS_REFUSED|refused"):
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
