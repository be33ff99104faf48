"""One round of the matrix: the suite in one system's tree, and its result.

Owns which tests these are and how their result is read. The virtual environment of a tree is made by our own
`make setup`, so that this too is tried on each release.
"""

import xml.etree.ElementTree as ET
from dataclasses import asdict, dataclass
from pathlib import Path

from systems import CHECKOUT, VENV, MatrixError, Tree

TESTS = ("tests/integration", "tests/faults", "tests/acceptance")
"""The tests that need services. Those of the sandbox itself and of containers are about this machine, not the versions."""
LEFT_OUT = (
    "tests/integration/test_sandbox.py",
    "tests/integration/test_sandbox_processes.py",
    "tests/acceptance/test_containers.py",
    "tests/acceptance/test_compose.py",
)
_RESULT = Path("/srv/result.xml")
_LONGEST = 3 * 60 * 60


@dataclass(frozen=True, slots=True)
class Round:
    """What came of the suite on one system."""

    system: str
    rabbitmq: str
    postgresql: str
    python: str
    passed: int
    failed: int
    skipped: int
    seconds: int
    failures: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)


def prepare(tree: Tree, checkout: Path) -> None:
    """Install the checkout's pinned packages for the tree's own Python. Raises MatrixError."""
    setup = ("make", "--no-print-directory", "-C", str(CHECKOUT), "setup", f"VENV={VENV}")
    if tree.run(*setup, checkout=checkout).returncode != 0:
        raise MatrixError(f"make setup failed in {tree.system.name}")


def play(tree: Tree, checkout: Path, *, postgres: str, arguments: list[str]) -> Round:
    """Run the suite in the tree against its RabbitMQ and a PostgreSQL of this kind (local or wheel)."""
    versions = tree.versions()
    if postgres == "wheel":
        versions["postgresql"] = _wheel_version(tree, checkout)
    chosen = any(argument.startswith("tests/") for argument in arguments)
    suite = [] if chosen else [*TESTS, *(f"--ignore={path}" for path in LEFT_OUT)]
    result = tree.root / _RESULT.relative_to("/")
    result.unlink(missing_ok=True)
    tree.run(
        *("sh", "-c", f'cd {CHECKOUT} && exec "$@"', "sh"),
        *(str(VENV / "bin/python"), "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        *("-o", "timeout=600", f"--junitxml={_RESULT}", *suite, *arguments),
        checkout=checkout,
        environment={"WORKER_SANDBOX_RABBITMQ": "local", "WORKER_SANDBOX_POSTGRES": postgres},
        seconds=_LONGEST,
    )
    if not result.exists():
        raise MatrixError(f"pytest did not run to its end in {tree.system.name}")
    return _read(result, tree.system.name, versions)


def _wheel_version(tree: Tree, checkout: Path) -> str:
    script = (
        f"{VENV}/bin/python -c 'from worker.sandbox.binaries import wheel_binaries as found;"
        " print(found().version)'"
    )
    return tree.run("sh", "-c", script, checkout=checkout, capture=True).stdout.strip()


def _read(result: Path, system: str, versions: dict[str, str]) -> Round:
    suites = ET.parse(result).getroot()  # written by our own pytest
    [suite] = suites.iter("testsuite")
    count = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    failures = tuple(
        f"{case.get('classname')}::{case.get('name')}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    )
    return Round(
        system=system,
        **versions,
        passed=count["tests"] - failed - count["skipped"],
        failed=failed,
        skipped=count["skipped"],
        seconds=round(float(suite.get("time", "0"))),
        failures=failures,
    )
