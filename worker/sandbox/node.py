"""A private RabbitMQ node, run from an installed or unpacked rabbitmq-server.

Owns the node's folder, its environment and its Erlang port mapper (epmd). The node listens on
127.0.0.1 only, on ports of its own, with a cookie and a password of its own: it neither sees
nor disturbs another broker of the machine. Nodes of one `Realm` can make a cluster.
"""

from __future__ import annotations

import secrets
import shutil
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from worker.sandbox.administration import CommandAdministration
from worker.sandbox.errors import SandboxError
from worker.sandbox.node_administration import NodeAdministration
from worker.sandbox.processes import free_port
from worker.sandbox.rabbitmq import ADVICE, Address, RabbitMQ, broker_version
from worker.sandbox.server import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from worker.sandbox.service import Kind, Surroundings

USER = "sandbox"


@dataclass(frozen=True, slots=True)
class Scripts:
    """Where the scripts of a rabbitmq-server are, and what Erlang they are to run on."""

    folder: Path
    search_path: str
    environment: Mapping[str, str]

    def find(self, program: str) -> str | None:
        """Return a program of Erlang, such as epmd."""
        return shutil.which(program, path=self.search_path)


@dataclass(frozen=True, slots=True)
class Realm:
    """What nodes must have in common to see each other, and a password for all of them."""

    cookie: str = field(default_factory=lambda: secrets.token_hex(24))
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    mapper_port: int = field(default_factory=free_port)


def node_name() -> str:
    """Return a name for a node that no other has."""
    return f"sandbox-{free_port()}@localhost"


def installed_scripts(search_path: str) -> Scripts | None:
    """Return the rabbitmq-server that this machine has installed."""
    for folder in _installed_folders(search_path):
        # A real server script has its neighbour; the wrapper of /usr/sbin has not.
        if (folder / "rabbitmq-server").exists() and (folder / "rabbitmq-env").exists():
            path = f"{search_path}:/usr/lib/erlang/bin"
            return Scripts(folder, path, {}) if shutil.which("erl", path=path) else None
    return None


def _installed_folders(search_path: str) -> Iterator[Path]:
    yield Path("/usr/lib/rabbitmq/bin")  # Debian, Ubuntu, RPMs
    yield Path("/opt/rabbitmq/sbin")  # the generic archive, the official image
    for prefix in ("/opt/homebrew/opt", "/usr/local/opt"):
        yield Path(prefix, "rabbitmq/sbin")  # Homebrew
    if program := shutil.which("rabbitmq-server", path=search_path):
        yield Path(program).resolve().parent


def private_node(
    kind: Kind,
    scripts: Scripts,
    surroundings: Surroundings,
    settings: Mapping[str, str],
    plugins: Iterable[str],
) -> RabbitMQ:
    """Make a folder for a node that is alone and start it."""
    realm = Realm()
    start_port_mapper(realm, scripts, surroundings)
    home = surroundings.directory / f"rabbitmq-{kind}"
    return start_node(
        kind, scripts, surroundings, settings, plugins, realm=realm, name=node_name(), home=home
    )


def start_node(
    kind: Kind,
    scripts: Scripts,
    surroundings: Surroundings,
    settings: Mapping[str, str],
    plugins: Iterable[str],
    *,
    realm: Realm,
    name: str,
    home: Path,
) -> RabbitMQ:
    """Make a folder for a node and start it; the port mapper of its realm must run."""
    home.mkdir(mode=0o700)
    address = Address("127.0.0.1", free_port(), USER, realm.password)
    _write_configuration(home, realm, address, settings, plugins)
    environment = _environment(home, name, realm, scripts)
    log = home / "log"
    server = ServerProcess(
        name="RabbitMQ",
        command=[str(scripts.folder / "rabbitmq-server")],
        environment=environment,
        log=log,
        ready=lambda: broker_version(address.host, address.port) is not None,
        advice=ADVICE,
        cancelled=surroundings.cancelled,
        started=surroundings.started,
    )
    surroundings.closing.callback(server.close)
    server.start()
    version = broker_version(address.host, address.port) or "of unknown version"
    commands = CommandAdministration(str(scripts.folder / "rabbitmqctl"), environment)
    administration = NodeAdministration(commands, USER, environment, scripts.find("erl_call"))
    return RabbitMQ(
        kind=kind,
        version=version,
        lifecycle=server,
        log=log,
        address=address,
        administration=administration,
    )


def _write_configuration(
    home: Path,
    realm: Realm,
    address: Address,
    settings: Mapping[str, str],
    plugins: Iterable[str],
) -> None:
    cookie = home / ".erlang.cookie"
    cookie.write_text(realm.cookie)
    cookie.chmod(0o400)
    (home / "rabbitmq-env.conf").touch()
    (home / "conf.d").mkdir()
    (home / "advanced.config").write_text("[].\n")
    (home / "enabled_plugins").write_text(f"[{','.join(plugins)}].\n")
    configuration = {
        "listeners.tcp.1": f"{address.host}:{address.port}",
        "default_user": address.user,
        "default_pass": address.password,
        "log.console": "true",
        "log.console.level": "info",
        "log.file": "false",
        **settings,
    }
    (home / "rabbitmq.conf").write_text(
        "".join(f"{name} = {value}\n" for name, value in configuration.items())
    )


def _environment(home: Path, name: str, realm: Realm, scripts: Scripts) -> dict[str, str]:
    """What the server, rabbitmqctl and erl_call need; nothing is taken over from ours."""
    loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
    return {
        "PATH": scripts.search_path,
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "RABBITMQ_NODENAME": name,
        "RABBITMQ_CONF_ENV_FILE": str(home / "rabbitmq-env.conf"),
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
        # Named, or an installed broker's own, in /etc/rabbitmq, would be read.
        "RABBITMQ_CONFIG_FILES": str(home / "conf.d"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(home / "data"),
        "RABBITMQ_LOG_BASE": str(home / "logs"),
        "RABBITMQ_PID_FILE": str(home / "pid"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(home / "generated"),
        "RABBITMQ_PLUGINS_EXPAND_DIR": str(home / "plugins"),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": loopback,
        "RABBITMQ_CTL_ERL_ARGS": loopback,
        # Any free port: the default range allows eleven calls at a time on the whole machine.
        "RABBITMQ_CTL_DIST_PORT_MIN": "0",
        "RABBITMQ_CTL_DIST_PORT_MAX": "0",
        "ERL_EPMD_PORT": str(realm.mapper_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_MAX_PORTS": "4096",
        # The script then becomes the server instead of waiting for it: one process to signal.
        "RUNNING_UNDER_SYSTEMD": "true",
        **scripts.environment,
    }


def start_port_mapper(realm: Realm, scripts: Scripts, surroundings: Surroundings) -> None:
    """Run epmd as a child of ours: one that Erlang starts by itself outlives the node."""
    program = scripts.find("epmd")
    if program is None:
        raise SandboxError(f"Erlang's epmd was not found on {scripts.search_path}. {ADVICE}")
    port = realm.mapper_port
    mapper = ServerProcess(
        name="Erlang's port mapper (epmd)",
        command=[program, "-port", str(port), "-address", "127.0.0.1"],
        environment={"PATH": scripts.search_path, **scripts.environment},
        log=surroundings.directory / "epmd.log",
        ready=lambda: _listens(port),
        advice=ADVICE,
        cancelled=surroundings.cancelled,
        started=surroundings.started,
    )
    surroundings.closing.callback(mapper.close)
    mapper.start()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True
