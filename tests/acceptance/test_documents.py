"""Every command in the documents is run, in its quick or its help form.

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
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import pytest
import typer.main
from support.broker import client
from support.commands import command
from support.documents import (
    OPERATIONS,
    ROOT,
    Command,
    commands,
    documents,
    inline_code,
)
from support.engine import docker, needs_engine
from support.events import created, logged
from support.workers import drain

from contracts import Event
from contracts.example_files import valid_examples
from worker import cli
from worker.health import application
from worker.settings import Settings, environment_name

LETTER = "3f2a9c1e"
"""The id that stands in the documents; the tests put that of a real letter in its place."""

LONG = ("run", "demo", "torture", "bench")
"""Commands that are tried in their help form."""

_DOCKER_COMMANDS = {"build", "run", "stop", "up", "exec", "logs", "ps", "down"}
_POSTGRES_VARIABLES = {"PGSSLROOTCERT", "PGSSLMODE", "PGSSLCERT", "PGSSLKEY"}


@pytest.fixture
def places(database_url, amqp_url):
    return {"DATABASE_URL": database_url, "AMQP_URL": amqp_url, "WORKER_HTTP_PORT": "0"}


def _told_by(*programs: str) -> list[Any]:
    return [
        pytest.param(told, id=told.text[:60])
        for told in commands()
        if told.words and told.words[0] in programs
    ]


def test_every_command_in_a_document_is_known_here():
    """Or a test has to be written for it."""
    known = {"worker", "alembic", "make", "pip", "export", "sh", "cp", "curl", "docker", "pg_dump", "rabbitmqctl"}  # fmt: skip
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
    if ">" in words:  # where a person keeps what it prints
        words = words[: words.index(">")]
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
    if words[0] == "checkpoints":
        places = request.getfixturevalue("places")
        places["WORKER_CHECKPOINT_ARCHIVE"] = "."
        [example] = [e for e in valid_examples("checkpoint.saved") if e.name == "valid-full"]
        asyncio.run(_store(request.getfixturevalue("settings"), Event(**example.event)))
        if "--from-archive" in words:
            assert command("checkpoints", "archive", **places).code == 0
    if "--earlier" in words:
        done = command("audit", "verify", "--json", **request.getfixturevalue("places"))
        Path(words[words.index("--earlier") + 1]).write_text(done.out)
    if words[0] == "publish":
        lines = [created().to_json(), logged().to_json()]
        for name in (word for word in words if word.endswith(".jsonl")):
            with open(name, "wb") as file:  # noqa: PTH123 (in the folder of the test)
                file.write(b"\n".join(lines))


async def _store(settings: Settings, event: Event) -> None:
    async with client(settings.broker) as agent:
        await agent.publish(event)
    await drain(settings)


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


@pytest.mark.parametrize("told", _told_by("cp"))
def test_an_environment_that_is_copied_gets_its_passwords(told: Command):
    """Compose refuses the example's empty ones: whoever copies it has to run deploy/make-env too."""
    source = told.words[1]
    assert (ROOT / source).exists(), told.place
    document = told.place.partition(":")[0]
    scripts = {one.text for one in commands() if one.place.startswith(document)}
    assert not source.endswith(".env") or "sh deploy/make-env" in scripts, told.place


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
        compose = ["compose"] if told.words[1] == "compose" else []
        name = next((word for word in told.words[1:] if word in _DOCKER_COMMANDS), told.place)
        _, text = await docker(*compose, name, "--help")
        if compose:
            text += (await docker("compose", "--help"))[1]
        for option in (word for word in told.words if word.startswith("--")):
            assert f"{option} " in text, told.place

    async def test_the_compose_file_is_valid(self):
        secrets = {"POSTGRES_PASSWORD": "x", "RABBITMQ_PASSWORD": "x"}
        await docker("compose", "--project-directory", str(ROOT), "config", "--quiet", **secrets)
