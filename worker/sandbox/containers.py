"""PostgreSQL and RabbitMQ in containers, by testcontainers.

Owns the images, and how a container is started, stopped, killed and paused. Ports are chosen
beforehand, so that they stay the same after a restart, and are published on 127.0.0.1 where the
engine is on this machine.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from worker.sandbox import databases, rabbitmq
from worker.sandbox.administration import control_failed
from worker.sandbox.errors import SandboxError
from worker.sandbox.management import ManagementAdministration
from worker.sandbox.postgres import Postgres
from worker.sandbox.processes import free_port, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from testcontainers.core.container import DockerContainer

    from worker.sandbox.service import Surroundings

POSTGRES_IMAGE = "postgres:17"
RABBITMQ_IMAGE = "rabbitmq:4-management"
IMAGE_PLUGINS = ("rabbitmq_management", "rabbitmq_prometheus")
DETECT_SECONDS = 3.0
READY_SECONDS = 90.0
STOP_SECONDS = 30
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})

# testcontainers makes its reaper, which removes what a killed process leaves, at the first
# container: two threads at once would make two.
_reaper = threading.Lock()


@contextlib.contextmanager
def _docker_errors() -> Iterator[None]:
    """Say what Docker refused as the error that everything here raises."""
    from docker.errors import DockerException  # noqa: PLC0415

    try:
        yield
    except (DockerException, OSError) as error:
        raise SandboxError(f"Docker answered: {error}.") from error


def engine_answers(search_path: str, environment: Mapping[str, str]) -> bool:
    """Whether `docker info` is answered, quickly."""
    program = shutil.which("docker", path=search_path)
    if program is None:
        return False
    try:
        done = run(program, "info", environment=environment, seconds=DETECT_SECONDS)
    except SandboxError:
        return False
    return done.returncode == 0


@dataclass(slots=True)
class Container:
    """One container as the lifecycle of a service."""

    name: str
    container: DockerContainer
    ready: Callable[[], bool]
    cancelled: threading.Event

    @property
    def owned(self) -> bool:
        """Whether the sandbox may stop it: always."""
        return True

    @property
    def _docker(self) -> Any:
        return self.container.get_wrapped_container()

    @_docker_errors()
    def start(self) -> None:
        """Start it again and wait until it is ready."""
        self._docker.start()
        self.await_ready()

    @_docker_errors()
    def await_ready(self) -> None:
        """Wait until the service in the container can be used."""
        deadline = time.monotonic() + READY_SECONDS
        while not self.ready():
            docker = self._docker
            docker.reload()
            if docker.status in {"exited", "dead"}:
                raise SandboxError(self._failure("ended while it started"))
            if time.monotonic() > deadline:
                raise SandboxError(self._failure(f"was not ready within {READY_SECONDS:.0f} s"))
            if self.cancelled.wait(0.1):
                raise SandboxError(f"The container of {self.name} was stopped while it started.")

    def _failure(self, what: str) -> str:
        log = self._docker.logs(tail=15).decode(errors="replace").rstrip()
        return f"The container of {self.name} {what}.\nThe end of its log:\n{log}"

    @_docker_errors()
    def stop(self) -> None:
        """Ask it to stop and wait until it has."""
        self.resume()
        self._docker.stop(timeout=STOP_SECONDS)

    @_docker_errors()
    def kill(self) -> None:
        """SIGKILL it and wait until it has ended."""
        self.resume()
        self._docker.kill()
        self._docker.wait()

    @_docker_errors()
    def pause(self) -> None:
        """Freeze all its processes."""
        self._docker.pause()

    @_docker_errors()
    def resume(self) -> None:
        """Let its processes run on, if they are frozen."""
        docker = self._docker
        docker.reload()
        if docker.status == "paused":
            docker.unpause()

    @_docker_errors()
    def control(self, *arguments: str) -> str:
        """Run rabbitmqctl in the container and return what it prints, without headings."""
        done = self._docker.exec_run(["rabbitmqctl", "--silent", *arguments], demux=True)
        output, errors = (part or b"" for part in done.output)
        if done.exit_code != 0:
            raise control_failed(arguments, done.exit_code, (output + errors).decode())
        return cast("str", output.decode())


def container_postgres(surroundings: Surroundings, settings: Mapping[str, str]) -> Postgres:
    """Return a PostgreSQL in a container of its own."""
    container = _container(POSTGRES_IMAGE, surroundings)
    password = secrets.token_urlsafe(24)
    container.with_envs(POSTGRES_PASSWORD=password)
    container.with_command(
        [
            "postgres",
            *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
        ]
    )
    host, (port,) = _run(container, (5432,), surroundings)
    address = databases.Address(host, port, "postgres", password, "postgres")
    lifecycle = Container(
        "PostgreSQL", container, lambda: _accepts(address), surroundings.cancelled
    )
    lifecycle.await_ready()
    return Postgres(
        kind="docker",
        version=databases.server_version(address),
        lifecycle=lifecycle,
        address=address,
    )


def _accepts(address: databases.Address) -> bool:
    try:
        databases.server_version(address)
    except SandboxError:
        return False
    return True


def container_rabbitmq(
    surroundings: Surroundings, settings: Mapping[str, str], plugins: Sequence[str]
) -> rabbitmq.RabbitMQ:
    """Return a RabbitMQ in a container of its own."""
    container = _container(RABBITMQ_IMAGE, surroundings)
    user, password = "sandbox", secrets.token_urlsafe(24)
    container.with_envs(RABBITMQ_DEFAULT_USER=user, RABBITMQ_DEFAULT_PASS=password)
    # A name of its own, so that the node finds its data again after a restart.
    container.with_kwargs(hostname="sandbox")
    if settings:
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        container.with_copy_into_container(lines.encode(), "/etc/rabbitmq/conf.d/90-sandbox.conf")
    if plugins:
        enabled = f"[{','.join({*IMAGE_PLUGINS, *plugins})}].\n"
        container.with_copy_into_container(enabled.encode(), "/etc/rabbitmq/enabled_plugins")
    host, (port, management_port) = _run(container, (5672, 15672), surroundings)
    address = rabbitmq.Address(host, port, user, password)
    management = ManagementAdministration(f"http://{host}:{management_port}", user, password)
    lifecycle = Container(
        "RabbitMQ",
        container,
        lambda: rabbitmq.broker_version(host, port) is not None and management.answers(),
        surroundings.cancelled,
    )
    lifecycle.await_ready()
    version = rabbitmq.broker_version(host, port) or "of unknown version"
    return rabbitmq.RabbitMQ(
        kind="docker",
        version=version,
        lifecycle=lifecycle,
        address=address,
        administration=ContainerAdministration(management, lifecycle),
    )


@dataclass(frozen=True, slots=True)
class ContainerAdministration:
    """Administers a broker in a container: rabbitmqctl there takes a second, its API does not."""

    management: ManagementAdministration
    container: Container

    def add_virtual_host(self, name: str, user: str) -> None:
        """Create a virtual host in which the user may do everything."""
        self.management.add_virtual_host(name, user)

    def delete_virtual_host(self, name: str) -> None:
        """Delete a virtual host with all that is in it."""
        self.management.delete_virtual_host(name)

    def control(self, *arguments: str) -> str:
        """Run rabbitmqctl in the container and return what it prints, without headings."""
        return self.container.control(*arguments)


def _container(image: str, surroundings: Surroundings) -> DockerContainer:
    environment = surroundings.environment
    if not engine_answers(environment.get("PATH", ""), environment):
        raise SandboxError(f"no Docker engine answered `docker info` in {DETECT_SECONDS:.0f} s")
    try:
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415
    except ImportError as error:
        raise SandboxError("testcontainers is not installed") from error
    with _docker_errors():
        return DockerContainer(image)


@_docker_errors()
def _run(
    container: DockerContainer, ports: Sequence[int], surroundings: Surroundings
) -> tuple[str, list[int]]:
    """Start the container, and return the host and the ports by which it is reached."""
    from testcontainers.core.config import testcontainers_config  # noqa: PLC0415
    from testcontainers.core.container import Reaper  # noqa: PLC0415

    client = container.get_docker_client()
    mode = client.get_connection_mode()
    here = client.host() in LOCAL_HOSTS and mode.value == "docker_host"
    for port in ports:
        published: Any = ("127.0.0.1", free_port()) if here else free_port()
        container.ports[f"{port}/tcp"] = published
    surroundings.closing.callback(_remove, container)
    if not testcontainers_config.ryuk_disabled:
        with _reaper:
            Reaper.get_instance()
    container.start()
    host = "127.0.0.1" if here else container.get_container_host_ip()
    return host, [int(container.get_exposed_port(port)) for port in ports]


def _remove(container: DockerContainer) -> None:
    with contextlib.suppress(Exception):  # it may never have been created
        docker = container.get_wrapped_container()
        docker.reload()
        if docker.status == "paused":
            docker.unpause()
    container.stop()
