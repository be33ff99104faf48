"""The commands of an operator, run as an operator runs them, against a real broker and a real database."""

import asyncio
import json

import pytest
from support import queues
from support.commands import command
from support.tables import count

from worker.cli.version import version

NOWHERE = "127.0.0.1:1"


@pytest.fixture
def places(database_url, amqp_url):
    return {"DATABASE_URL": database_url, "AMQP_URL": amqp_url, "WORKER_HTTP_PORT": "0"}


def test_help_names_every_command_and_version_the_version():
    """`worker --help` is where everything begins."""
    told = command("--help").out
    for name in ("run", "status", "doctor", "migrate", "topology", "maintain", "contracts"):
        assert f"│ {name} " in told
    assert command("--version").out == f"agent-persistence {version()}\n"


def test_run_help_lists_every_setting_with_its_meaning():
    """Nobody has to read the source to know what can be set."""
    from worker.settings import Settings, environment_name

    told = command("run", "--help").out
    for name, field in Settings.model_fields.items():
        assert environment_name(name) in told
        assert set(field.description.split()) <= set(told.split())
    assert "8388608 (8 MiB)" in told


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (["run"], {"AMQP_URL": "amqp://a"}, "DATABASE_URL is not set"),
        (["status"], {"DATABASE_URL": "postgresql://a"}, "AMQP_URL is not set"),
        (["run"], {"DATABASE_URL": "mysql://a:geheim@b", "AMQP_URL": "amqp://a"}, "DATABASE_URL: "),
        (["migrate"], {}, "DATABASE_URL is not set"),
        (["topology", "apply"], {}, "AMQP_URL is not set"),
        (["maintain"], {"DATABASE_URL": "postgresql://a", "WORKER_GRACE": "x"}, "WORKER_GRACE: "),
        (["maintain"], {"DATABASE_URL": "postgresql://a", "WORKER_RETENTION": "tasks=1y/2y"}, "'tasks=1y/2y': rows of tasks"),
        (["archive", "list"], {}, "WORKER_ARCHIVE: '' is no folder"),
        (["archive", "restore", "metrics", "2026"], {"DATABASE_URL": "postgresql://a"}, "'2026' is no month"),
        (["run", "--families", "tasks"], {"DATABASE_URL": "postgresql://a", "AMQP_URL": "amqp://a"}, "tasks is not"),
        (["frobnicate"], {}, "No such command"),
    ],
)  # fmt: skip
def test_a_mistake_exits_2_with_a_sentence_that_names_it(arguments, environment, named):
    """The variable is named, its value is not."""
    done = command(*arguments, **environment)
    assert done.code == 2
    assert named in done.err
    assert "Traceback" not in done.err
    assert "geheim" not in done.err


@pytest.mark.parametrize(
    "arguments", [["run"], ["migrate"], ["maintain"], ["topology", "apply"], ["status"]]
)
def test_a_service_out_of_reach_exits_3_and_names_the_place(arguments):
    """Where it looked is said; the password that it used is not."""
    done = command(
        *arguments,
        DATABASE_URL=f"postgresql://user:geheim@{NOWHERE}/agents",
        AMQP_URL=f"amqp://user:geheim@{NOWHERE}/",
        WORKER_START_TIMEOUT="0",
    )
    assert done.code == 3
    assert NOWHERE in done.err
    assert "geheim" not in done.out + done.err
    assert "Traceback" not in done.err


def test_run_without_migrations_says_which_command_to_run(empty_database_url, amqp_url):
    """A new database is no crash: exit 2."""
    done = command("run", DATABASE_URL=empty_database_url, AMQP_URL=amqp_url)
    assert done.code == 2
    assert "run 'alembic upgrade head'" in done.err


def test_run_without_topology_says_which_command_to_run(places):
    """What is missing is named: exit 2."""
    asyncio.run(queues.delete(places["AMQP_URL"], "worker.trajectory"))
    done = command("run", **places)
    assert done.code == 2
    assert "queue worker.trajectory is missing" in done.err
    assert "worker topology apply" in done.err


@pytest.mark.parametrize("name", ["run", "status", "doctor"])
@pytest.mark.parametrize("which", ["DATABASE_URL", "AMQP_URL"])
def test_a_refused_password_is_never_shown(places, name, which):
    """Neither in the sentence nor in the log; at start it is a mistake in the configuration."""
    login, at, place = places[which].rpartition("@")
    wrong = f"{login.rpartition(':')[0]}:geheim{at}{place}"
    done = command(name, **{**places, which: wrong, "WORKER_START_TIMEOUT": "0"})
    assert done.code == {"run": 2, "status": 3, "doctor": 2}[name]
    assert "password" in done.out + done.err
    assert "geheim" not in done.out + done.err


def test_migrate_then_again_says_what_it_did(empty_database_url):
    """It needs the database only; the second time there is nothing to do."""
    first = command("migrate", "--json", DATABASE_URL=empty_database_url)
    assert (first.code, first.err) == (0, "")
    assert "0001" in {one["version"] for one in first.json["applied"]}
    again = command("migrate", DATABASE_URL=empty_database_url)
    assert again.code == 0
    assert "was up to date already" in again.out


def test_topology_apply_is_idempotent_and_names_what_differs(amqp_url):
    """A queue of another kind is named with its argument, nothing is changed, exit 2; once it is gone, it is put right."""
    assert command("topology", "apply", AMQP_URL=amqp_url).code == 0
    asyncio.run(queues.replace_by_classic(amqp_url, "worker.execution-log"))
    asyncio.run(queues.delete(amqp_url, "worker.trajectory"))

    done = command("topology", "apply", AMQP_URL=amqp_url)
    assert done.code == 2
    assert "queue worker.execution-log has x-" in done.err
    shown = {one["name"]: one["problem"] for one in _show(amqp_url)}
    assert shown["worker.trajectory"] == "missing"
    assert "wanted is" in shown["worker.execution-log"]
    assert shown["worker.task-lifecycle"] is None

    asyncio.run(queues.delete(amqp_url, "worker.execution-log"))
    done = command("topology", "apply", "--json", AMQP_URL=amqp_url)
    assert done.json["declared"] == ["queue worker.execution-log", "queue worker.trajectory"]
    assert not any(one["problem"] for one in _show(amqp_url))


def _show(amqp_url):
    return command("topology", "show", "--json", AMQP_URL=amqp_url).json


def test_status_tells_people_and_programs_the_same(places):
    """Queues by family, outbox, dead letters, tables, migrations, versions."""
    told = command("status", **places)
    assert told.code == 0
    for word in ("task-lifecycle", "RabbitMQ", "Outbox", "lifecycle_events", "0001"):
        assert word in told.out
    seen = command("status", "--json", **places).json
    assert {one["family"] for one in seen["broker"]["queues"]} >= {"trajectory", "unrouted"}
    assert seen["database"]["migrations_missing"] == []
    assert seen["database"]["contents"]["outbox"] == {"rows": 0, "oldest_seconds": None}


def test_status_shows_what_still_answers(database_url):
    """With the broker away the database is shown all the same; exit 3."""
    done = command("status", DATABASE_URL=database_url, AMQP_URL=f"amqp://{NOWHERE}")
    assert done.code == 3
    assert "lifecycle_events" in done.out
    assert f"RabbitMQ at {NOWHERE}" in done.err


async def test_maintain_twice_adds_months_once(database_url):
    """A dry run changes nothing; then months are added; then there is nothing left to add."""

    async def maintain(*arguments):
        done = await asyncio.to_thread(
            command, "maintain", "--json", "--months-ahead", "13", *arguments, DATABASE_URL=database_url
        )  # fmt: skip
        assert done.code == 0
        return {one["table"]: len(one["added"]) for one in done.json["tables"]}

    partitions = "pg_class WHERE relispartition AND relkind = 'r'"
    before = await count(database_url, partitions)
    planned = await maintain("--dry-run")
    assert await count(database_url, partitions) == before
    assert await maintain() == planned == dict.fromkeys(planned, 1)
    assert await maintain() == dict.fromkeys(planned, 0)
    assert await count(database_url, partitions) == before + len(planned)


def test_maintain_without_migrations_says_so(empty_database_url):
    """A database that was never migrated has nothing to maintain: exit 2."""
    done = command("maintain", DATABASE_URL=empty_database_url)
    assert done.code == 2
    assert "alembic upgrade head" in done.err


def test_doctor_finds_what_is_wrong_and_how_to_mend_it(empty_database_url, amqp_url):
    """Missing migrations and a missing queue: exit 2, with a remedy for each."""
    asyncio.run(queues.delete(amqp_url, "worker.task-lifecycle"))
    places = {"DATABASE_URL": empty_database_url, "AMQP_URL": amqp_url, "WORKER_HTTP_PORT": "0"}
    done = command("doctor", "--json", **places)
    assert done.code == 2
    to_mend = {one["check"]: one["remedy"] for one in done.json if one["level"] == "mend"}
    assert "alembic upgrade head" in to_mend["migrations"]
    assert "worker topology apply" in to_mend["topology"]


def test_doctor_without_settings_says_which(places):
    """A missing setting is a finding like any other."""
    done = command("doctor", "--json", AMQP_URL=places["AMQP_URL"])
    assert done.code == 2
    assert [(one["check"], one["level"]) for one in done.json] == [("settings", "mend")]
    assert "DATABASE_URL is not set" in done.json[0]["what"]


def test_doctor_has_nothing_to_mend_where_all_is_well(places):
    """The tests' database runs without fsync, on purpose: that, and only that, is found."""
    done = command("doctor", "--json", **places)
    wrong = {one["check"]: one["what"] for one in done.json if one["level"] == "mend"}
    assert wrong.pop("durability", "fsync").startswith("fsync")
    assert not wrong
    told = command("doctor", **places)
    assert told.code == done.code
    assert "topology: 4 exchanges" in told.out


def test_contracts_export_writes_every_format(tmp_path):
    """JSON Schema as one file or one a type, AsyncAPI 3, Markdown; - is standard output."""
    schemas = command("contracts", "export", "--format", "jsonschema").json
    assert "task.created" in schemas
    assert (
        command("contracts", "export", "--format", "jsonschema", "--output", str(tmp_path)).code
        == 0
    )
    assert json.loads((tmp_path / "task.created.json").read_text()) == schemas["task.created"]
    asyncapi = command("contracts", "export", "--format", "asyncapi", "--output", "-").json
    assert asyncapi["asyncapi"] == "3.0.0"
    page = tmp_path / "contracts.md"
    assert command("contracts", "export", "--format", "markdown", "--output", str(page)).code == 0
    assert "task.created" in page.read_text()
    nowhere = str(tmp_path / "no" / "file")
    assert command("contracts", "export", "--format", "markdown", "--output", nowhere).code == 2
