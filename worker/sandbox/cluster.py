"""A private PostgreSQL server: a data folder of its own and a server on it.

Owns how both are made: a password of its own, 127.0.0.1 only, fsync on. PostgreSQL refuses to
run as root, so there the server runs as `nobody`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import signal
import socket
from typing import TYPE_CHECKING

from worker.sandbox import databases
from worker.sandbox.binaries import Binaries, library_path, readable_binaries
from worker.sandbox.errors import SandboxError
from worker.sandbox.postgres import Postgres
from worker.sandbox.processes import Identity, free_port, run
from worker.sandbox.server import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from worker.sandbox.service import Kind, Surroundings

SUPERUSER = "postgres"
ADVICE = (
    "Another PostgreSQL can be chosen with WORKER_SANDBOX_POSTGRES=wheel, docker, local, install "
    "or url (with DATABASE_URL)."
)
PID_FILE_SHARED_MEMORY_LINE = 6
PID_FILE_STATUS_LINE = 7


def private_server(
    kind: Kind, binaries: Binaries, surroundings: Surroundings, settings: Mapping[str, str]
) -> Postgres:
    """Make a data folder and start a server on it."""
    home = surroundings.directory / f"postgresql-{kind}"
    home.mkdir()
    identity = _identity()
    if identity is not None:
        binaries = readable_binaries(binaries, home / "programs")
    environment = {
        "PATH": os.defpath,
        "LC_ALL": "C",
        "HOME": str(home),
        **library_path(binaries.libraries),
    }
    address = databases.Address(
        host="127.0.0.1",
        port=free_port(),
        user=SUPERUSER,
        password=secrets.token_urlsafe(24),
        database="postgres",
    )
    data, log = home / "data", home / "log"
    _make_data_folder(binaries, data, log, address.password, environment, identity)
    server = ServerProcess(
        name=f"PostgreSQL {binaries.version}",
        command=_command(binaries, data, address.port, settings),
        environment=environment,
        log=log,
        ready=lambda: _ready(data, address.port),
        advice=ADVICE,
        identity=identity,
        stop_signal=signal.SIGINT,  # "fast": sessions are ended, data is flushed
        close_signal=signal.SIGQUIT,  # "immediate": data is lost, shared memory is given back
        cancelled=surroundings.cancelled,
        started=surroundings.started,
    )
    surroundings.closing.callback(_release_shared_memory, data)
    surroundings.closing.callback(server.close)
    server.start()
    return Postgres(kind=kind, version=binaries.version, lifecycle=server, log=log, address=address)


def _command(binaries: Binaries, data: Path, port: int, settings: Mapping[str, str]) -> list[str]:
    fixed = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        # In the data folder rather than in /dev/shm, where a killed server leaves it behind.
        "dynamic_shared_memory_type": "mmap",
    }
    command = [str(binaries.folder / "postgres"), "-D", str(data)]
    for name, value in {**fixed, **settings}.items():
        command += ["-c", f"{name}={value}"]
    return command


def _make_data_folder(
    binaries: Binaries,
    data: Path,
    log: Path,
    password: str,
    environment: Mapping[str, str],
    identity: Identity | None,
) -> None:
    home = data.parent
    password_file = home / "password"
    password_file.write_text(password)
    password_file.chmod(0o600)
    log.touch()
    if identity is not None:
        for path in (home, password_file, log):
            os.chown(path, identity.uid, identity.gid)
    made = run(
        *(binaries.folder / "initdb", "-D", data, "-U", SUPERUSER),
        *("-A", "scram-sha-256", f"--pwfile={password_file}"),
        *("-E", "UTF8", "--no-locale", "--no-sync"),
        environment=environment,
        identity=identity,
        seconds=60.0,
    )
    password_file.unlink()
    if made.returncode != 0:
        raise SandboxError(
            f"initdb of PostgreSQL {binaries.version} ended with status {made.returncode}.\n"
            f"{(made.stdout + made.stderr).strip()}\n{ADVICE}"
        )


def _release_shared_memory(data: Path) -> None:
    """Give back the piece of shared memory that a killed server leaves until the next start."""
    with contextlib.suppress(OSError, IndexError, SandboxError):
        lines = (data / "postmaster.pid").read_text().splitlines()
        segment = lines[PID_FILE_SHARED_MEMORY_LINE].split()[1]
        run("ipcrm", "-m", segment, environment=os.environ, seconds=10.0)


def _ready(data: Path, port: int) -> bool:
    """Whether the postmaster says so in its pid file (as pg_ctl asks) and its port answers."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    if lines[PID_FILE_STATUS_LINE : PID_FILE_STATUS_LINE + 1] != ["ready   "]:
        return False
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _identity() -> Identity | None:
    """The user to run as: `nobody` for root, else ourselves."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return Identity(nobody.pw_uid, nobody.pw_gid)
