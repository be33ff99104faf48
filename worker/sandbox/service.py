"""What every service of the sandbox has in common, and what one is built with.

Owns the vocabulary: where a service came from (`Kind`), how it is started and stopped
(`Lifecycle`, one for each way to run a server), and the `Surroundings` a service is opened in.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from worker.sandbox.errors import SandboxError

if TYPE_CHECKING:
    import contextlib
    import threading
    from pathlib import Path

Kind = Literal["url", "wheel", "docker", "local", "install"]
Say = Callable[[str], None]


class Lifecycle(Protocol):
    """One server, or what stands for it, that can be started and stopped."""

    @property
    def owned(self) -> bool:
        """Whether the sandbox may stop it."""

    def start(self) -> None:
        """Start it, on the same port with the same data, and wait until it is ready."""

    def stop(self) -> None:
        """Stop it in an orderly way and wait until it has."""

    def kill(self) -> None:
        """SIGKILL all its processes."""

    def pause(self) -> None:
        """Let none of its processes run on."""

    def resume(self) -> None:
        """Let its processes run on."""


@dataclass(slots=True, kw_only=True, repr=False)
class Service(abc.ABC):
    """A server, and the scratch databases or virtual hosts that the sandbox made in it.

    What starts and stops it raises `SandboxError` where the sandbox does not own the server.
    """

    kind: Kind
    version: str
    lifecycle: Lifecycle
    log: Path | None = None
    created: set[str] = field(default_factory=set)

    def __repr__(self) -> str:
        return f"<{self.describe()}>"

    @abc.abstractmethod
    def describe(self) -> str:
        """Return one line that says what it is and where, without a secret."""

    @abc.abstractmethod
    def create(self, name: str) -> str:
        """Create a scratch database or virtual host and return its URL."""

    @abc.abstractmethod
    def drop(self, name: str) -> None:
        """Drop what `create` made, also while it is being used."""

    def drop_all(self) -> None:
        """Drop everything that `create` made and that is still there."""
        for name in sorted(self.created):
            self.drop(name)

    def check_created(self, name: str) -> None:
        """Raise unless it was created here: the sandbox never drops what is not its own."""
        if name not in self.created:
            raise SandboxError(f"{name!r} was not created by this sandbox, so it does not drop it.")

    @property
    def owned(self) -> bool:
        """Whether the sandbox started it, and so may stop it."""
        return self.lifecycle.owned

    def start(self) -> None:
        """Start it again, on the same port with the same data, and wait until it is ready."""
        self.lifecycle.start()

    def stop(self) -> None:
        """Stop it in an orderly way; its clients are disconnected."""
        self.lifecycle.stop()

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()

    def kill(self) -> None:
        """SIGKILL all its processes, as a power cut would."""
        self.lifecycle.kill()

    def pause(self) -> None:
        """Stop all its processes from running: connections stay open, nothing answers."""
        self.lifecycle.pause()

    def resume(self) -> None:
        """Let its processes run on."""
        self.lifecycle.resume()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a service is opened: its folder, whom to tell, and what ends it again."""

    directory: Path
    cache: Path
    environment: Mapping[str, str]
    say: Say
    cancelled: threading.Event
    closing: contextlib.ExitStack
    started: Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Borrowed:
    """A server that the sandbox was told to use and must neither stop nor restart."""

    name: str

    @property
    def owned(self) -> bool:
        """Whether the sandbox may stop it: never."""
        return False

    def _refuse(self) -> None:
        raise SandboxError(
            f"{self.name} was given by its URL, so the sandbox does not stop, start or pause it: "
            "use one that the sandbox starts itself (docker, local or install)."
        )

    start = stop = kill = pause = resume = _refuse
