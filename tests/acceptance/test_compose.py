"""`docker compose up` from a checkout: what it makes, that it is safe to scale, to kill and to take down."""

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.broker import client
from support.engine import docker, needs_engine
from support.env_files import read_env
from support.events import created, logged
from support.ledger import Ledger

from contracts.identifiers import uuid7
from worker.sandbox.processes import free_port

pytestmark = [*needs_engine, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
WORKERS = 2
TASKS = 30
ENTRIES = 10


@dataclass(frozen=True)
class Project:
    """A compose project of its own: names, ports and volumes are nobody else's."""

    name: str
    env_file: Path
    settings: dict[str, str]

    async def compose(self, *arguments: str, check: bool = True) -> tuple[int, str]:
        where = ("--project-name", self.name, "--project-directory", str(ROOT))
        return await docker(
            "compose", *where, "--env-file", str(self.env_file), *arguments, check=check
        )

    @property
    def amqp_url(self) -> str:
        given = self.settings
        return f"amqp://{given['RABBITMQ_USER']}:{given['RABBITMQ_PASSWORD']}@127.0.0.1:{given['AMQP_PORT']}/"

    @property
    def database_url(self) -> str:
        given = self.settings
        return (
            f"postgresql://{given['POSTGRES_USER']}:{given['POSTGRES_PASSWORD']}"
            f"@127.0.0.1:{given['POSTGRES_PORT']}/{given['POSTGRES_DB']}"
        )

    async def containers(self, service: str) -> list[dict]:
        """What the engine tells of each container of a service."""
        _, ids = await self.compose("ps", "--all", "--quiet", service)
        _, text = await docker("inspect", *ids.split())
        return json.loads(text)


@pytest.fixture
async def project(tmp_path):
    """A project; all of it is removed after the test, the image too."""
    tag = f"test-{os.getpid()}"
    settings = {
        **read_env(ROOT / "deploy" / "example.env"),
        **{name: secrets.token_hex(24) for name in ("POSTGRES_PASSWORD", "RABBITMQ_PASSWORD")},
        **{name: str(free_port()) for name in ("POSTGRES_PORT", "AMQP_PORT", "MANAGEMENT_PORT")},
        "WORKER_IMAGE_TAG": tag,
    }
    env_file = tmp_path / "test.env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    project = Project(f"agent-persistence-{tag}", env_file, settings)
    yield project
    await project.compose("--profile", "*", "down", "--volumes", "--timeout", "5", check=False)
    await docker("image", "rm", "--force", f"agent-persistence:{tag}", check=False)


async def test_the_file_is_valid_and_opens_ports_on_this_machine_only(project):
    """Workers have none, so that they can be scaled; the others have theirs on 127.0.0.1."""
    _, text = await project.compose("--profile", "*", "config", "--format", "json")
    services = json.loads(text)["services"]
    assert set(services) == {"postgres", "rabbitmq", "migrate", "worker", "maintain"}
    assert "ports" not in services["worker"]
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


async def test_without_passwords_it_says_what_to_run(project):
    """The remedy is in the message."""
    project.env_file.write_text("")
    code, text = await project.compose("config", "--quiet", check=False)
    assert code != 0
    assert "sh deploy/make-env" in text


async def test_nothing_is_lost_between_up_and_down(project):
    """Tables and queues are made, the workers share the work, one that is killed is not missed, the rest stop well."""
    await project.compose("up", "--build", "--detach", "--scale", f"worker={WORKERS}")
    workers = await project.containers("worker")
    assert len(workers) == WORKERS
    for one in workers:
        assert one["Config"]["User"] == "10001:10001"
        assert one["HostConfig"]["ReadonlyRootfs"]
        assert not one["NetworkSettings"]["Ports"].get("8080/tcp")

    ledger = Ledger()
    async with client(project.amqp_url) as agent:
        for number in range(TASKS):
            task = uuid7()
            events = [created(task), *(logged(task) for _ in range(ENTRIES))]
            await ledger.publish(agent, events)
            if number == TASKS // 2:
                await docker("kill", workers[0]["Id"])
        await ledger.hear(agent)
    assert len(ledger.published) == TASKS * (1 + ENTRIES)

    await project.compose("stop", "worker")
    ended = {one["Id"]: one["State"]["ExitCode"] for one in await project.containers("worker")}
    assert ended == {workers[0]["Id"]: 137, workers[1]["Id"]: 0}
    await ledger.balance(project.database_url)
    await project.compose("down")
    _, left = await project.compose("ps", "--all", "--quiet")
    assert not left.strip()


async def test_the_image_holds_no_secret_and_can_do_everything(project):
    """Settings come from outside; the commands and the migrations are inside."""
    await project.compose("build", "worker")
    image = f"agent-persistence:{project.settings['WORKER_IMAGE_TAG']}"
    _, text = await docker("image", "inspect", image)
    [inspected] = json.loads(text)
    given = dict(one.split("=", 1) for one in inspected["Config"]["Env"])
    assert not {"DATABASE_URL", "AMQP_URL"} & set(given)
    assert given["WORKER_HTTP_HOST"] == "0.0.0.0"
    assert inspected["Config"]["Healthcheck"]["Test"][0] == "CMD"
    code, text = await docker("run", "--rm", "--read-only", image, check=False)
    assert (code, "DATABASE_URL is not set" in text) == (2, True)
    _, text = await docker("run", "--rm", "--read-only", image, "--version")
    assert text.startswith("agent-persistence ")
