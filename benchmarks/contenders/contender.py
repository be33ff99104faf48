"""What a contender is: processes that empty queues into tables, and how to start and end them."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import Load
from benchmarks.services import Place

ROOT = Path(__file__).resolve().parents[2]
_STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Contender:
    """One way to do the job. `queues` are those that it reads, where they are not the worker's own."""

    name: str

    loads: tuple[str, ...] | None = None
    """The loads that it can do; None for all."""

    @property
    def missing(self) -> str | None:
        """Why it cannot run here, in a sentence; None where it can."""
        return None

    def prepared(self, load: Load) -> Load:
        """The load as this contender takes it."""
        return load

    def in_service(self) -> "Contender":
        """The same, as it runs where messages come for ever: it does not end with its backlog."""
        return self

    def can(self, load_name: str) -> bool:
        """Whether it can do this load."""
        return self.loads is None or load_name in self.loads

    def queues(self, load: Load) -> tuple[str, ...]:
        """The queues that its backlog waits in."""
        return load.queues

    async def fill(self, place: Place, load: Load) -> None:
        """Publish the backlog."""
        await place.broker.publish(load.bodies)

    @contextlib.contextmanager
    def running(self, place: Place, load: Load, log: Path) -> Iterator["Processes"]:
        """Start it; ended at the end of the block."""
        with log.open("wb") as output:
            processes = Processes(
                [
                    subprocess.Popen(  # noqa: S603 (commands of our own)
                        command,
                        cwd=ROOT,
                        env={**os.environ, **environment},
                        stdout=output,
                        stderr=output,
                        stdin=subprocess.DEVNULL,
                        start_new_session=True,
                    )
                    for command, environment in self.commands(place, load)
                ],
                log,
            )
            try:
                yield processes
            finally:
                processes.stop()

    def commands(self, place: Place, load: Load) -> list[tuple[list[str], Mapping[str, str]]]:
        """The processes to start: command and environment."""
        raise NotImplementedError


class Processes:
    """The running processes of a contender."""

    def __init__(self, processes: "list[subprocess.Popen[bytes]]", log: Path) -> None:
        self._processes = processes
        self._log = log

    @property
    def pids(self) -> list[int]:
        """The processes that were started; their children are found in the process table."""
        return [process.pid for process in self._processes]

    def check(self) -> None:
        """Raise where one of them has failed."""
        for process in self._processes:
            if process.poll() not in (None, 0):
                tail = self._log.read_text(errors="replace").strip().splitlines()[-8:]
                raise RuntimeError(
                    f"a contender ended with status {process.returncode}: " + "\n".join(tail)
                )

    def stop(self) -> None:
        """End all of them, in an orderly way where they do."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def python(*arguments: str) -> list[str]:
    """A command of the interpreter that runs the benchmark."""
    return [sys.executable, *arguments]
