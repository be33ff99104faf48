"""The systems of the matrix: a Debian or Ubuntu of each release in a folder of its own, with its own broker, database and Python.

Owns how such a tree is made (debootstrap, then the release's own packages) and how a command runs in it. A tree is made
once and kept in the cache folder. No service of it is ever started by its packages; the sandbox starts its own. Mounts are
made in a mount namespace of the command and end with it, so nothing has to be cleaned up. Promises that nothing that runs
in a tree, not even a package's script, can write to this machine's files, but for the checkout while tests run.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGES = "python3 python3-venv make rabbitmq-server postgresql ca-certificates"
CHECKOUT = Path("/checkout")
"""Where the checkout is, seen from inside a tree."""
VENV = Path("/opt/venv")

_FOR_THE_NETWORK = ("/etc/resolv.conf", "/etc/hosts")
_FOR_DOWNLOADS = ("/etc/pip.conf", "/etc/ssl/certs")
_PASSED_ON = ("PIP_", "UV_", "SSL_", "HTTP", "http", "NO_PROXY", "no_proxy", "WORKER_SANDBOX_")

# In a mount namespace of its own, so that all mounts end with the command; in a process namespace of its own, so that
# nothing that it starts outlives it.
_ENTER = """
set -e
root=$1 checkout=$2 shared=$3
shift 3
mount --make-rprivate /
if [ -n "$checkout" ]; then
    mkdir -p "$root/checkout"
    mount --bind "$checkout" "$root/checkout"
fi
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
for path in $shared; do
    if [ -d "$path" ]; then mkdir -p "$root$path"; else rm -f "$root$path"; touch "$root$path"; fi
    mount --bind "$path" "$root$path"
    mount -o remount,bind,ro "$root$path"
done
exec chroot "$root" "$@"
"""

# As any administrator would, but with services forbidden to start and no database cluster made. debootstrap has just
# fetched the lists of packages.
_INSTALL = f"""
set -e
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
mkdir -p /etc/postgresql-common
echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
export DEBIAN_FRONTEND=noninteractive
apt-get install -y -qq --no-install-recommends {PACKAGES} >/dev/null
apt-get clean
"""


@dataclass(frozen=True, slots=True)
class System:
    """A release of Debian or Ubuntu, by the name under which debootstrap knows it."""

    name: str
    keyring: str
    """The file of the keys that its archive is signed with."""
    keyring_package: str
    needs: str | None = None
    """The system whose signed packages hold that file, where this machine has none."""
    components: str = "main"
    script: str | None = None
    """The release whose script of debootstrap makes this one too, since an older debootstrap does not know it by name."""


_DEBIAN = ("usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring")
_UBUNTU = (
    "usr/share/keyrings/ubuntu-archive-keyring.gpg",
    "ubuntu-keyring",
    "trixie",
    "main,universe",
    "jammy",
)

SYSTEMS = {
    system.name: system
    for system in (
        System("bookworm", *_DEBIAN),
        System("noble", *_UBUNTU),
        System("trixie", *_DEBIAN),
        System("sid", *_DEBIAN),
    )
}


class MatrixError(Exception):
    """A system cannot be had here; the text says why and what helps."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A system in a folder, in which commands can be run."""

    system: System
    root: Path

    def run(
        self,
        *command: str,
        checkout: Path | None = None,
        environment: Mapping[str, str] | None = None,
        capture: bool = False,
        seconds: float = 600,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the tree to its end; with a checkout, that is at /checkout and downloads work as they do here."""
        wanted = _FOR_THE_NETWORK if checkout is None else (*_FOR_THE_NETWORK, *_FOR_DOWNLOADS)
        shared = " ".join(path for path in wanted if Path(path).exists())
        passed_on = {key: os.environ[key] for key in os.environ if key.startswith(_PASSED_ON)}
        inside = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            **passed_on,
            **(environment or {}),
        }
        assignments = [f"{key}={value}" for key, value in inside.items()]
        return subprocess.run(
            [
                *(
                    "unshare",
                    "--mount",
                    "--pid",
                    "--fork",
                    "--kill-child",
                    "sh",
                    "-c",
                    _ENTER,
                    "sh",
                ),
                *(str(self.root), str(checkout or ""), shared),
                *("env", "--ignore-environment", *assignments, *command),
            ],
            text=True,
            stdout=subprocess.PIPE if capture else None,
            timeout=seconds,
            check=False,
        )

    def versions(self) -> dict[str, str]:
        """What the tree has: the versions of RabbitMQ, PostgreSQL and Python."""
        script = (
            "dpkg-query -W -f '${source:Upstream-Version}\\n' rabbitmq-server; "
            "/usr/lib/postgresql/*/bin/postgres --version; python3 --version"
        )
        answer = self.run("sh", "-c", script, capture=True)
        rabbitmq, postgres, python = answer.stdout.splitlines()
        return {
            "rabbitmq": rabbitmq,
            "postgresql": postgres.split()[2],
            "python": python.split()[1],
        }


def missing_means() -> str | None:
    """Why no tree can be made or entered here; None where it can."""
    if os.geteuid() != 0:
        return "it needs root: a system in a folder is entered by chroot"
    for program in ("unshare", "chroot", "mount"):
        if shutil.which(program) is None:
            return f"it needs the program {program}"
    return None


def tree(system: System, cache: Path, say: Callable[[str], None]) -> Tree:
    """The tree of a system, made if it is not there yet. Raises MatrixError."""
    root = cache / system.name
    if not root.exists():
        keyring = _keyring(system, cache, say)
        draft = cache / f"{system.name}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        say(f"making {system.name} in {root} (once)")
        debootstrap, scripts = _debootstrap(cache)
        script = scripts / "scripts" / (system.script or system.name)
        options = ["--variant=minbase", f"--keyring={keyring}", f"--components={system.components}"]
        default_mirror = ""
        settings = {"DEBOOTSTRAP_DIR": str(scripts)}
        _checked(
            [debootstrap, *options, system.name, str(draft), default_mirror, str(script)], settings
        )
        done = Tree(system, draft).run("sh", "-c", _INSTALL)
        if done.returncode != 0:
            raise MatrixError(f"installing packages in {system.name} failed")
        draft.rename(root)  # at the very end: a folder that exists is complete
    return Tree(system, root)


def _debootstrap(cache: Path) -> tuple[str, Path]:
    """The program and the folder of its scripts: installed, or unpacked into the cache folder."""
    installed = shutil.which("debootstrap")
    root = Path("/") if installed else _unpacked("debootstrap", cache)
    program = installed or str(root / "usr/sbin/debootstrap")
    return program, root / "usr/share/debootstrap"


def _keyring(system: System, cache: Path, say: Callable[[str], None]) -> Path:
    """The keys of the system's archive, from this machine or out of a package of a system that is trusted already."""
    installed = Path("/", system.keyring)
    if installed.exists():
        return installed
    if system.needs is None:
        return _unpacked(system.keyring_package, cache) / system.keyring
    trusted = tree(SYSTEMS[system.needs], cache, say)
    if not (trusted.root / system.keyring).exists():
        trusted.run("apt-get", "install", "-y", "-qq", system.keyring_package)
    return trusted.root / system.keyring


def _unpacked(package: str, cache: Path) -> Path:
    """A package of this machine's own release, unpacked into the cache folder without installing it."""
    folder = cache / "tools" / package
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists():
        if shutil.which("apt-get") is None:
            raise MatrixError(
                f"install {package}: this is not a Debian or Ubuntu that could get it"
            )
        with tempfile.TemporaryDirectory(dir=cache) as work:
            _checked(["apt-get", "download", "-qq", package], {}, folder=Path(work))
            [archive] = Path(work).glob("*.deb")
            _checked(["dpkg", "-x", str(archive), str(folder)], {})
    return folder


def _checked(command: list[str], settings: Mapping[str, str], folder: Path = Path("/")) -> None:
    """Run a command of this machine to its end. Raises MatrixError with the end of what it printed."""
    done = subprocess.run(
        command,
        env={**os.environ, **settings},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stdout + done.stderr).strip().splitlines()[-3:]
        raise MatrixError(
            f"{Path(command[0]).name} ended with {done.returncode}: {' / '.join(last)}"
        )
