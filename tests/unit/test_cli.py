"""The command line without services: what is printed, and what a process of several is told."""

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from support.commands import command

from worker import cli, supervisor
from worker.cli import output
from worker.errors import Invalid, Misconfigured, Unavailable
from worker.settings import Settings

PLACES = {"database_url": "postgresql://a/b", "amqp_url": "amqp://a"}


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, output.NOTHING), (0.25, "250 ms"), (5, "5 s"), (300, "5 min"), (9000, "2 h"), (1e6, "12 d")],
)  # fmt: skip
def test_spans_of_time_are_told_as_people_tell_them(seconds, said):
    assert output.duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (2048, "2 KiB"), (5 * 1024**2, "5 MiB"), (3 * 1024**4, "3.0 TiB")],
)
def test_sizes_are_told_as_people_tell_them(count, said):
    assert output.size(count).plain == said


def test_a_table_shows_what_came_in_a_message_as_it_is(capsys):
    """Markup in data is data, and an empty table says so."""
    output.print_table("Letters", ("source", "n"), [("[red]x[/red]", 1234), (None, True)])
    output.print_table("Nothing", ("a",), [])
    told = capsys.readouterr().out
    assert "[red]x[/red]" in told
    assert "1,234" in told
    assert "yes" in told
    assert "Nothing: none" in told


def test_json_holds_data_classes_times_and_sets(capsys):
    """What programs read."""

    @dataclass
    class Thing:
        at: datetime
        names: frozenset[str]

    output.print_json([Thing(datetime(2026, 11, 1, tzinfo=UTC), frozenset({"b", "a"}))])
    assert '"at": "2026-11-01T00:00:00+00:00"' in (told := capsys.readouterr().out)
    assert told.index('"a"') < told.index('"b"')


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Misconfigured("no such family"), 2),
        (Unavailable("away"), 3),
        (Invalid("refused"), 1),
    ],
)
def test_errors_become_exit_codes_and_one_sentence(monkeypatch, capsys, error, code):
    """No traceback for what a person can mend."""

    def fail(**_):
        raise error

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(cli, "register_commands", lambda _: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    assert capsys.readouterr().err == f"worker: {error}\n"


def test_ctrl_c_says_nothing(monkeypatch):
    """A command that was interrupted ends with 130, as shells have it."""
    from worker.cli import status

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(status, "overview", interrupted)
    done = command("status", DATABASE_URL="postgresql://a/b", AMQP_URL="amqp://a")
    assert (done.code, done.out, done.err) == (130, "", "")


def test_every_module_of_commands_is_registered():
    """A command exists because its module is there."""
    cli.register_commands()
    names = {command.name for command in cli.app.registered_commands}
    names |= {group.name for group in cli.app.registered_groups}
    assert names >= {"run", "status", "doctor", "migrate", "maintain", "topology", "contracts"}


def test_each_process_has_a_name_and_a_port_of_its_own():
    """Process i serves HTTP on the port + i; without HTTP none does."""
    settings = Settings.load(**PLACES, name="w", http_port=8080, families="trajectory")
    assert supervisor.child_settings(settings, 2) == {
        "WORKER_NAME": "w-2",
        "WORKER_HTTP_PORT": "8082",
        "WORKER_FAMILIES": "trajectory",
    }
    silent = settings.model_copy(update={"http_port": 0})
    assert supervisor.child_settings(silent, 2)["WORKER_HTTP_PORT"] == "0"


def test_the_pause_before_a_restart_doubles_up_to_a_longest_with_jitter():
    """Half a second at first, never more than the setting, and not the same for all; a thousand deaths are no error."""
    for deaths, most in ((1, 0.5), (2, 1), (3, 2), (6, 15), (1000, 15)):
        pauses = [supervisor.restart_pause(deaths, 15) for _ in range(50)]
        assert most / 2 <= min(pauses) < max(pauses) <= most


async def test_ports_past_the_last_are_refused():
    """Before anything is started."""
    settings = Settings.load(**PLACES, http_port=65535)
    with pytest.raises(Misconfigured, match="leaves no ports for 2 processes"):
        await supervisor.supervise(settings, 2, drain=False)


@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("DATABASE_URL", "postgresql://u:geheim@h1:5432,h2:5432/d"),
        ("DATABASE_URL", "postgresql://u:geheim@h:x/d"),
        ("AMQP_URL", "amqp://u:geheim@h:x/"),
    ],
)
def test_an_address_with_a_bad_port_is_a_sentence_and_shows_no_secret(variable, url):
    """Exit 2 and the name of the variable, not a driver's traceback."""
    places = {"DATABASE_URL": "postgresql://a/b", "AMQP_URL": "amqp://a", variable: url}
    done = command("status", **places)
    assert done.code == 2
    assert variable in done.err
    assert "port" in done.err
    assert "geheim" not in done.err
    assert "Traceback" not in done.err
