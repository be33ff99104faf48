"""`worker run` as a process: signals, health, several processes."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import urllib.error
import urllib.request

import pytest
from support import queues
from support.broker import client
from support.commands import command, running_command
from support.events import created
from support.tables import count

QUICK = {"WORKER_RETRY_LONGEST": "0.2", "WORKER_HTTP_PORT": "0"}


@pytest.fixture
def places(database_url, amqp_url):
    return {**QUICK, "DATABASE_URL": database_url, "AMQP_URL": amqp_url}


async def test_stopped_while_it_waits_for_a_service_it_exits_0(places):
    """SIGTERM does not wait for the start timeout."""
    environment = {**places, "DATABASE_URL": "postgresql://127.0.0.1:1/agents"}
    async with running_command("run", **environment) as run:
        await run.said("waiting for a service")
        run.process.send_signal(signal.SIGTERM)
        assert await run.ended() == 0


async def test_it_serves_health_and_metrics_and_sigterm_finishes_the_work(places):
    """Ready while attached to every queue, not ready while one is gone, ready again; what is in hand is committed."""
    port = _free_port()
    environment = {**places, "WORKER_HTTP_PORT": str(port)}
    async with running_command("run", **environment) as run, client(places["AMQP_URL"]) as agent:
        await run.said('"event": "started"')
        assert await _become(port, 200) == {"queues": "ok", "database": "ok"}
        assert (await _get(port, "/livez"))[0] == 200
        status, metrics = await _get(port, "/metrics")
        assert status == 200
        assert 'worker_messages_total{family="task-lifecycle",outcome="persisted"} 0.0' in metrics

        await queues.delete(places["AMQP_URL"], "worker.trajectory")
        checks = await _become(port, 503)
        assert "trajectory" in checks["queues"]
        assert (await _get(port, "/livez"))[0] == 200
        assert (await asyncio.to_thread(command, "topology", "apply", **places)).code == 0
        await _become(port, 200)

        await agent.publish(*(created() for _ in range(200)))
        await agent.confirmed(1)
        run.process.send_signal(signal.SIGTERM)
        run.process.send_signal(
            signal.SIGTERM
        )  # a service manager may tell it twice: that is one wish
        assert await run.ended() == 0
        assert await count(places["DATABASE_URL"], "tasks") + await _waiting(places) == 200
    for line in run.lines:
        json.loads(line)
    assert "second signal" not in run.err


async def test_two_processes_drain_the_queues_and_exit_0(places):
    """With --drain a process that ends is no failure; each has a name of its own."""
    async with client(places["AMQP_URL"]) as agent:
        await agent.publish(*(created() for _ in range(50)))
    async with running_command(
        "run", "--processes", "2", "--drain", **places, WORKER_NAME="w"
    ) as run:
        assert await run.ended() == 0
    assert await count(places["DATABASE_URL"], "tasks") == 50
    assert {json.loads(line)["worker"] for line in run.lines} == {"w", "w-0", "w-1"}


async def test_a_process_that_dies_is_started_again_and_a_clean_stop_still_exits_0(places):
    """Killed twice, it comes back with its own name and port and says how often; the other one never notices."""
    port = _two_free_ports()
    environment = {**places, "WORKER_HTTP_PORT": str(port), "WORKER_RESTART_LONGEST": "0.1"}
    async with running_command("run", "--processes", "2", **environment, WORKER_NAME="w") as run:
        await run.said('"event": "started"', times=2)
        for times in (1, 2):
            pids = await run.said(r'"process": "w-0", "pid": (\d+).*"process started"', times=times)
            os.kill(int(pids[-1]), signal.SIGKILL)
            await run.said('"code": -9, "cause": "SIGKILL"', times=times)
            await run.said('"event": "started"', times=2 + times)
        await _become(port, 200)
        assert "worker_restarts_total 2.0" in (await _get(port, "/metrics"))[1]
        assert "worker_restarts_total 0.0" in (await _get(port + 1, "/metrics"))[1]
        run.process.send_signal(signal.SIGTERM)
        assert await run.ended() == 0
    assert len(await run.said(r'"process": "w-1".*"process started"')) == 1
    assert '"deaths": 2, "code": 0' in run.err


async def test_a_process_that_always_dies_waits_longer_each_time_and_sigterm_ends_the_wait(
    places, tmp_path
):
    """A crash loop neither spins nor is silent, and nobody waits for a process that is not there."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nif os.environ['WORKER_NAME'] == 'w-0':\n    os._exit(1)\n"
    )
    broken = {**places, "PYTHONPATH": str(tmp_path), "WORKER_RESTART_LONGEST": "600"}
    async with running_command("run", "--processes", "2", **broken, WORKER_NAME="w") as run:
        [pause] = await run.said(r'"deaths_in_a_row": 4, "seconds": ([\d.]+)')
        assert float(pause) >= 2
        run.process.send_signal(signal.SIGTERM)
        assert await run.ended() == 0
        await run.silence()
    assert len(await run.said('"cause": "exit code 1"')) == 4
    assert '"deaths": 4, "code": 0' in run.err


async def test_one_that_died_while_draining_is_started_again_and_finishes(places):
    """A drained process has ended for good, a dead one has not; the exit code is that of the work: 0."""
    doomed = {**places, "WORKER_RESTART_LONGEST": "0.1"}
    async with client(places["AMQP_URL"]) as agent:
        await agent.publish(*(created() for _ in range(20)))
    async with running_command("run", "--processes", "2", "--drain", **doomed) as run:
        for pid in await run.said(r'"pid": (\d+).*"process started"', times=2):
            os.kill(int(pid), signal.SIGKILL)
        assert await run.ended() == 0
    assert await count(places["DATABASE_URL"], "tasks") == 20
    assert '"deaths": 2, "code": 0' in run.err


async def test_what_a_person_has_to_mend_ends_all_with_exit_code_2(places):
    """A restart would not help: the sentence is there once a process, and nothing is started again."""
    await queues.delete(places["AMQP_URL"], "worker.trajectory")
    async with running_command("run", "--processes", "2", **places) as run:
        assert await run.ended() == 2
        await run.silence()
    assert "Run 'worker topology apply'" in run.err
    assert len(await run.said("process started")) <= 2
    assert "process died" not in run.err


async def test_a_service_that_was_never_reached_ends_all_with_exit_code_3(places):
    """As it ends one process: whoever started it hears that nothing works yet."""
    nowhere = {**places, "DATABASE_URL": "postgresql://127.0.0.1:1/agents"}
    async with running_command(
        "run", "--processes", "2", **nowhere, WORKER_START_TIMEOUT="0"
    ) as run:
        assert await run.ended() == 3
        await run.silence()


async def test_processes_end_with_their_supervisor(places):
    """However it ended: a second supervisor finds no ports taken and no strangers at the queues."""
    async with running_command("run", "--processes", "2", **places) as run:
        await run.said('"event": "started"', times=2)
        run.process.kill()
        await run.said('"event": "stopped"', times=2)
        await run.silence()


async def test_ctrl_c_stops_every_process_and_exits_0(places):
    """SIGINT of the terminal reaches the supervisor, which hands it on once."""
    async with running_command("run", "--processes", "2", **places) as run:
        await run.said('"event": "started"', times=2)
        run.process.send_signal(signal.SIGINT)
        assert await run.ended() == 0
    assert "Traceback" not in run.err
    assert "second signal" not in run.err


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _two_free_ports() -> int:
    """The first of two that follow each other."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port + 1)):
                return port


async def _get(port: int, path: str) -> tuple[int, str]:
    def get() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except urllib.error.URLError:
            return 0, "nobody listens yet"

    return await asyncio.to_thread(get)


async def _become(port: int, status: int) -> dict[str, str]:
    """The checks of /readyz, once it answers with this status."""
    async with asyncio.timeout(20):
        while True:
            seen, body = await _get(port, "/readyz")
            if seen == status:
                return json.loads(body)["checks"]


async def _waiting(places: dict[str, str]) -> int:
    """How many messages wait in the queue of tasks."""
    from worker.broker import topology
    from worker.broker.connection import connect

    connection = await connect(places["AMQP_URL"], name="test")
    try:
        return await topology.message_count(connection, "worker.task-lifecycle") or 0
    finally:
        await connection.close()
