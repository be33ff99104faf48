"""A PostgreSQL server of its own with a standby that takes over, as a failover does; and a disk that can be filled."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from worker.sandbox import Postgres
from worker.sandbox.databases import Address, execute, server_version
from worker.sandbox.errors import SandboxError
from worker.sandbox.processes import free_port, run
from worker.sandbox.selection import open_postgres
from worker.sandbox.server import ServerProcess
from worker.sandbox.service import Surroundings

QUICK = {"fsync": "off", "full_page_writes": "off"}


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder that the server's user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="agent-persistence-test-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Pair:
    """A primary and its standby; every commit is on both."""

    primary: Postgres
    standby: Address

    def place(self, address: Address) -> tuple[str, int]:
        return address.host, address.port

    def fail_over(self) -> None:
        """The old primary writes no more, and stays for whoever is connected; the standby takes over."""
        old = self.primary.address
        execute(old, "ALTER SYSTEM SET default_transaction_read_only = on")
        execute(old, "SELECT pg_reload_conf()")
        execute(self.standby, "SELECT pg_promote(true, 60)")
        execute(self.standby, "ALTER SYSTEM SET synchronous_standby_names = ''")
        execute(self.standby, "SELECT pg_reload_conf()")


@contextmanager
def primary_and_standby() -> Iterator[Pair]:
    """Two servers of our own. Skips the test where the programs for it are not there."""
    with _folder() as folder, ExitStack() as closing:
        surroundings = Surroundings(
            directory=folder,
            cache=folder,
            environment=dict(os.environ),
            say=lambda _: None,
            cancelled=threading.Event(),
            closing=closing,
            started=lambda _: None,
        )
        primary = open_postgres("wheel,local,install", surroundings, QUICK)
        server = primary.lifecycle
        assert isinstance(server, ServerProcess)
        program = Path(server.command[0]).parent / "pg_basebackup"
        if not program.exists():
            pytest.skip(f"{program} is not installed")
        address = replace(primary.address, port=free_port())
        standby = _standby(server, primary.address, address, folder, program)
        closing.callback(standby.close)
        standby.start()
        execute(primary.address, "ALTER SYSTEM SET synchronous_standby_names = '*'")
        execute(primary.address, "SELECT pg_reload_conf()")
        yield Pair(primary, address)


def _standby(
    server: ServerProcess, primary: Address, address: Address, folder: Path, program: Path
) -> ServerProcess:
    """A copy of the primary's data that follows it, as a server that is not started yet."""
    home = folder / "standby"
    home.mkdir()
    if server.identity is not None:
        os.chown(home, server.identity.uid, server.identity.gid)
    data = home / "data"
    copied = run(
        *(program, "-d", primary.dsn(), "-D", data, "-R", "-X", "stream", "-c", "fast"),
        "--no-sync",
        environment=server.environment,
        identity=server.identity,
        seconds=60,
    )
    assert copied.returncode == 0, copied.stderr
    command = list(server.command)
    command[command.index("-D") + 1] = str(data)
    command = [f"port={address.port}" if part.startswith("port=") else part for part in command]
    return ServerProcess(
        name="standby",
        command=command,
        environment=server.environment,
        log=home / "log",
        ready=lambda: _answers(address),
        advice="",
        identity=server.identity,
        stop_signal=signal.SIGINT,
        close_signal=signal.SIGQUIT,
    )


def _answers(address: Address) -> bool:
    try:
        return bool(server_version(address))
    except SandboxError:
        return False


@dataclass
class Disk:
    """A small disk with a database on it."""

    folder: Path
    url: str

    def fill(self) -> None:
        """Leave no room for a page."""
        with (
            (self.folder / "ballast").open("ab", buffering=0) as file,
            contextlib.suppress(OSError),
        ):
            while True:
                file.write(b"\0" * 4096)

    def free(self) -> None:
        (self.folder / "ballast").unlink()


@contextmanager
def small_disk(postgres: Postgres, url: str) -> Iterator[Disk]:
    """A tablespace on a tmpfs of 48 MiB, and a copy of a database in it. Skips the test where it cannot be mounted."""
    server = postgres.lifecycle
    if not isinstance(server, ServerProcess) or os.geteuid() != 0:
        pytest.skip("a tmpfs for the server's user can be mounted by root only")
    with _folder() as folder, ExitStack() as closing:
        options = f"size=48m,mode=0700,uid={server.identity.uid},gid={server.identity.gid}"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False
        )
        if mounted.returncode != 0:
            pytest.skip("a tmpfs cannot be mounted here")
        closing.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=False)
        name, template = f"small_{os.getpid()}", urlsplit(url).path[1:]
        space = folder / "space"
        space.mkdir()
        os.chown(space, server.identity.uid, server.identity.gid)
        execute(postgres.address, f"CREATE TABLESPACE {name} LOCATION '{space}'")
        closing.callback(execute, postgres.address, f"DROP TABLESPACE {name}")
        execute(postgres.address, f"CREATE DATABASE {name} TEMPLATE {template} TABLESPACE {name}")
        closing.callback(execute, postgres.address, f"DROP DATABASE {name} WITH (FORCE)")
        yield Disk(folder, postgres.address.url(name))
