"""Debian packages, for machines that have neither a server installed nor Docker.

Owns how a package comes to run: installed by apt-get where we are root or sudo asks no
password, else downloaded and unpacked into the cache folder, which takes no rights at all. No
system service is ever started, and nothing installed is upgraded or removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from worker.sandbox import binaries, node
from worker.sandbox.errors import SandboxError
from worker.sandbox.processes import run

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence

    from worker.sandbox.service import Surroundings

INSTALL_SECONDS = 600.0
# policy-rc.d with status 101 forbids the packages' scripts to start their service. One shell
# does it all, so that the file is taken away again even when this process is killed meanwhile.
INSTALL_SCRIPT = """
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\\nexit 101\\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
install() {
    apt-get install -y -qq --no-install-recommends --no-upgrade --no-remove \\
        -o DPkg::Lock::Timeout=120 "$1"
}
install "$1" || { apt-get update -qq && install "$1"; }
if command -v systemctl >/dev/null; then systemctl disable "$1" >/dev/null 2>&1 || true; fi
"""


def install_rabbitmq(surroundings: Surroundings) -> node.Scripts:
    """Return a rabbitmq-server that is or was just installed, or unpacked now or earlier."""
    search_path = surroundings.environment.get("PATH", os.defpath)
    if installed := node.installed_scripts(search_path):
        return installed
    with _exclusive(surroundings.cache):
        administrator = _administrator(search_path)
        if administrator is not None and _install("rabbitmq-server", administrator, surroundings):
            installed = node.installed_scripts(search_path)
            if installed is not None:
                return installed
        root = _unpacked("rabbitmq-server", surroundings)
    return unpacked_scripts(root, search_path)


def install_postgres(surroundings: Surroundings) -> binaries.Binaries:
    """Return a PostgreSQL that is installed, or was unpacked now or earlier.

    It is never installed: the package would make a database of its own, with a service.
    """
    installed = binaries.installed_binaries(surroundings.environment.get("PATH", os.defpath))
    if installed is not None and installed.major >= binaries.OLDEST_MAJOR:
        return installed
    with _exclusive(surroundings.cache):
        root = _unpacked("postgresql", surroundings)
    for folder in sorted(root.glob("usr/lib/postgresql/*/bin")):
        found = binaries.binaries_in(folder, libraries=_libraries(root), trees=(root,))
        if found is not None:
            return found
    raise SandboxError(f"The packages unpacked in {root} hold no PostgreSQL that runs here.")


def unpacked_scripts(root: Path, search_path: str) -> node.Scripts:
    """Return the scripts of an unpacked rabbitmq-server, with what they need to run there."""
    erlang = root / "usr/lib/erlang"
    environment = {"ERL_LIBS": str(erlang / "lib")}
    if libraries := _libraries(root):
        environment["LD_LIBRARY_PATH"] = ":".join(map(str, libraries))
    path = f"{erlang / 'bin'}:{root / 'usr/bin'}:{search_path}"
    return node.Scripts(root / "usr/lib/rabbitmq/bin", path, environment)


@contextlib.contextmanager
def _exclusive(cache: Path) -> Iterator[None]:
    """Let one process at a time install: two at once would get in each other's way."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "packages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _administrator(search_path: str) -> tuple[str, ...] | None:
    """Return what to put before a command to run it as root, or None if we cannot."""
    if os.geteuid() == 0:
        return ()
    if shutil.which("sudo", path=search_path) is None:
        return None
    return ("sudo", "-n") if _run("sudo", "-n", "true").returncode == 0 else None


def _install(package: str, administrator: Sequence[str], surroundings: Surroundings) -> bool:
    if shutil.which("apt-get") is None:
        return False
    surroundings.say(f"installing {package} by apt-get; its system service is not started")
    done = _run(*administrator, "sh", "-c", INSTALL_SCRIPT, "sh", package)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        surroundings.say(f"apt-get did not install {package} ({last}); unpacking it instead")
    return done.returncode == 0


def _unpacked(package: str, surroundings: Surroundings) -> Path:
    """Return the folder into which the package and what it needs are unpacked."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise SandboxError(
            f"{package} is not installed, and this is not a Debian or Ubuntu where the sandbox "
            "could get it: install it (such as by `brew install`), start Docker, or name a "
            "server by its URL."
        )
    root = surroundings.cache / "packages" / f"{package}-{_system()}"
    if not root.exists():
        surroundings.say(f"downloading {package} and unpacking it into {root}")
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent) as work:
            _download_and_unpack(package, surroundings.cache / "apt", Path(work))
            _relocate_erlang(Path(work, "root"), root)
            Path(work, "root").rename(root)  # at the very end: a folder that exists is complete
    return root


def _system() -> str:
    """Tell systems that share a home folder apart: debian-12-x86_64."""
    release = platform.freedesktop_os_release()
    return f"{release.get('ID')}-{release.get('VERSION_ID', 'rolling')}-{platform.machine()}"


def _download_and_unpack(package: str, state: Path, work: Path) -> None:
    archives, root = work / "archives", work / "root"
    archives.mkdir()
    root.mkdir()
    if not _download(package, (), archives):
        # The system's lists of packages are missing or old: fetch our own.
        options = private_apt_options(state)
        _check(_run("apt-get", *options, "update", "-qq"), "apt-get update")
        if not _download(package, options, archives):
            raise SandboxError(f"apt-get could not download {package}: is its source reachable?")

    def unpack(archive: Path) -> None:
        _check(_run("dpkg", "-x", archive, root), f"dpkg -x {archive.name}")

    with ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as threads:
        list(threads.map(unpack, sorted(archives.glob("*.deb"))))


def private_apt_options(state: Path) -> list[str]:
    """Return options with which apt-get needs no rights: it keeps its lists where we may write."""
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    settings = {
        "Dir::State": state,
        "Dir::State::lists": state / "lists",
        "Dir::Cache": state / "cache",
        "APT::Sandbox::User": "",
    }
    return [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]


def _download(package: str, options: Sequence[str], archives: Path) -> bool:
    plan = _run("apt-get", *options, "install", "--simulate", "--no-install-recommends", package)
    names = packages_to_unpack(plan.stdout)
    if plan.returncode != 0 or not names:
        return False
    return _run("apt-get", *options, "download", "-qq", *names, folder=archives).returncode == 0


def packages_to_unpack(plan: str) -> list[str]:
    """Read the packages that are missing from what `apt-get install --simulate` prints.

    "Inst erlang-base (1:25.2 Debian …)" is missing; "Inst libc6 [2.35] (2.36 …)" would be an
    upgrade: the system's own is what the rest runs on.
    """
    return re.findall(r"^Inst (\S+) \(", plan, re.MULTILINE)


def _relocate_erlang(unpacked: Path, root: Path) -> None:
    """Tell Erlang's start script where it will be: the package fixes it to /usr/lib/erlang."""
    script = unpacked / "usr/lib/erlang/bin/erl"
    if script.exists():
        text = script.read_text().replace("/usr/lib/erlang", str(root / "usr/lib/erlang"))
        script.write_text(text)


def _libraries(root: Path) -> tuple[Path, ...]:
    """Return the folders below root that hold shared libraries."""
    folders = {library.parent for library in root.glob("usr/lib/*-linux-*/*.so*")}
    folders |= {library.parent for library in root.glob("lib/*-linux-*/*.so*")}
    return tuple(sorted(folders))


def _run(*command: str | Path, folder: Path = Path("/")) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    return run(*command, environment=environment, folder=folder, seconds=INSTALL_SECONDS)


def _check(done: subprocess.CompletedProcess[str], what: str) -> None:
    if done.returncode != 0:
        raise SandboxError(f"{what} ended with status {done.returncode}.\n{done.stderr.strip()}")
