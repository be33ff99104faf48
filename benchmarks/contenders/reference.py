"""The limit: the job in C, built from benchmarks/reference with the system's compiler when it is first needed.

It needs a C compiler and the headers of librabbitmq and libpq. Where they are missing and we are root on a Debian or
Ubuntu, they are installed from its packages; else the contender is left out with a sentence.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from benchmarks.contenders.contender import ROOT, Contender
from benchmarks.load import Load
from benchmarks.services import Place

_SOURCES = ROOT / "benchmarks" / "reference"
_PACKAGES = ("gcc", "libc6-dev", "librabbitmq-dev", "libpq-dev")
_REMEDY = (
    "the C reference needs a C compiler, librabbitmq-dev and libpq-dev: install them, and run again"
)
_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-pthread")


@dataclass(frozen=True)
class Reference(Contender):
    """So many processes of the C program."""

    processes: int = 1
    one_a_message: bool = False

    @property
    def missing(self) -> str | None:
        """Why it could not be built, if it could not."""
        program = build()
        return program if isinstance(program, str) else None

    def can(self, load_name: str) -> bool:
        """An event a message is measured with logs."""
        return super().can(load_name) and (not self.one_a_message or load_name == "logs")

    def commands(self, place: Place, load: Load) -> list[tuple[list[str], Mapping[str, str]]]:
        """The program once a process, reading the queues of the load."""
        environment = {**_amqp(place.amqp_url), **_postgres(place.database_url)}
        if self.one_a_message:
            environment["ONE_A_MESSAGE"] = "1"
        return [([str(build()), *load.queues], environment)] * self.processes


@cache
def build() -> Path | str:
    """The program, built anew for this run; or why it cannot be."""
    if (not _can_compile() and not _install()) or not _can_compile():
        return _REMEDY
    folder = Path(tempfile.mkdtemp(prefix="agent-persistence-reference-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    plan = subprocess.run(
        [sys.executable, "-m", "benchmarks.reference.generate"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    (folder / "plan.c").write_bytes(plan)
    program = folder / "reference"
    sources = [*map(str, sorted(_SOURCES.glob("*.c"))), str(folder / "plan.c")]
    return program if _compile(sources, program) else "the C reference does not compile here"


def _compile(sources: list[str], program: Path) -> bool:
    include = ["-I", str(_SOURCES), "-I", "/usr/include/postgresql"]
    command = ["cc", *_FLAGS, *include, *sources, "-o", str(program), "-lrabbitmq", "-lpq"]
    return _run(*command)


def _can_compile() -> bool:
    """Whether a program that includes both libraries builds."""
    if shutil.which("cc") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "try.c")
        source.write_text(
            "#include <amqp.h>\n#include <libpq-fe.h>\nint main(void) { return PQlibVersion() == 0; }\n"
        )
        return _compile([str(source)], Path(folder, "try"))


def _install() -> bool:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    _run("apt-get", "update", "-qq")
    options = (
        "-y",
        "-qq",
        "--no-install-recommends",
        "--no-upgrade",
    )  # an installed server stays as it is
    return _run("apt-get", "install", *options, *_PACKAGES)


def _run(*command: str) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)  # noqa: S603 (as above)
    return done.returncode == 0


def _amqp(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    return {
        "AMQP_HOST": parts.hostname or "localhost",
        "AMQP_PORT": str(parts.port or 5672),
        "AMQP_USER": unquote(parts.username or "guest"),
        "AMQP_PASSWORD": unquote(parts.password or "guest"),
        "AMQP_VHOST": unquote(parts.path[1:]) or "/",
    }


def _postgres(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    return {
        "PGHOST": parts.hostname or "localhost",
        "PGPORT": str(parts.port or 5432),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": unquote(parts.path[1:]),
    }
