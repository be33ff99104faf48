"""One server process: started, awaited, stopped, killed, paused.

Owns every server that the sandbox runs itself. When `start` returns it is ready, when `start`
raises it does not run; `close` leaves none of its processes behind, whatever state (running,
paused, killed) they were in.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worker.sandbox.errors import SandboxError, log_tail
from worker.sandbox.processes import (
    POLL_SECONDS,
    Identity,
    gone,
    kill_tree,
    process_tree,
    signal_processes,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


@dataclass(slots=True)
class ServerProcess:
    """One server in the foreground, as a child of this process, with its log in a file."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    ready: Callable[[], bool]
    advice: str
    identity: Identity | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    close_signal: signal.Signals = signal.SIGKILL
    start_seconds: float = 90.0
    stop_seconds: float = 30.0
    cancelled: threading.Event = field(default_factory=threading.Event)
    started: Callable[[int], None] = lambda _pid: None
    _process: subprocess.Popen[bytes] | None = None

    @property
    def owned(self) -> bool:
        """Whether the sandbox may stop it: always."""
        return True

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it is ready; nothing to do when it runs."""
        if self.pid is not None:
            return
        with self.log.open("ab") as log:
            who = self.identity
            self._process = subprocess.Popen(  # noqa: S603 (a server of our choice)
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                start_new_session=True,  # Ctrl-C in the terminal is ours to hand on
                user=None if who is None else who.uid,
                group=None if who is None else who.gid,
                extra_groups=None if who is None else [],
            )
        self.started(self._process.pid)
        try:
            self._await_ready(self._process)
        except BaseException:
            self.kill()
            raise

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self.start_seconds
        while not self.ready():
            status = process.poll()
            if status is not None:
                what = f"{self.name} ended with status {status} while it started."
                raise SandboxError(log_tail(what, self.log, self.advice))
            if time.monotonic() > deadline:
                what = f"{self.name} was not ready within {self.start_seconds:.0f} s."
                raise SandboxError(log_tail(what, self.log, self.advice))
            if self.cancelled.wait(POLL_SECONDS):
                raise SandboxError(f"{self.name} was stopped while it started.")

    def stop(self) -> None:
        """Ask the server to stop and wait until it has."""
        self._end(self.stop_signal)

    def close(self) -> None:
        """End the server in the quickest way that leaves nothing behind."""
        self._end(self.close_signal)

    def _end(self, number: signal.Signals) -> None:
        process, pid = self._process, self.pid
        if process is None or pid is None:
            return
        if number is signal.SIGKILL:
            self.kill()
            return
        tree = process_tree(pid)
        signal_processes([pid], number)
        signal_processes(tree, signal.SIGCONT)  # a paused server does not hear a signal
        try:
            process.wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            what = f"{self.name} did not stop within {self.stop_seconds:.0f} s and was killed."
            raise SandboxError(log_tail(what, self.log, self.advice)) from None
        if not wait_until(lambda: gone(tree), seconds=5.0):
            signal_processes(tree, signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL the server with all its processes and wait until they are gone."""
        process, pid = self._process, self.pid
        if process is None or pid is None:
            return
        tree = kill_tree(pid)
        process.wait()
        wait_until(lambda: gone(tree), seconds=10.0)

    def pause(self) -> None:
        """SIGSTOP all its processes: connections stay open and nothing answers."""
        if self.pid is not None:
            signal_processes([self.pid], signal.SIGSTOP)  # first, so that it starts no more
            signal_processes(process_tree(self.pid), signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT all its processes."""
        if self.pid is not None:
            signal_processes(process_tree(self.pid), signal.SIGCONT)
