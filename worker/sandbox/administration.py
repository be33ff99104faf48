"""Administering a broker: virtual hosts and rabbitmqctl.

Owns the `Administration` protocol and the way that works with every broker whose rabbitmqctl
can be run on this machine. A private node adds a quicker way, a broker given by its URL may
have its management API instead.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from worker.sandbox.errors import SandboxError
from worker.sandbox.processes import run

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTROL_SECONDS = 60.0


class Administration(Protocol):
    """What it takes to make and remove virtual hosts, and to run rabbitmqctl."""

    def add_virtual_host(self, name: str, user: str) -> None:
        """Create a virtual host in which the user may do everything."""

    def delete_virtual_host(self, name: str) -> None:
        """Delete a virtual host with all that is in it."""

    def control(self, *arguments: str) -> str:
        """Run rabbitmqctl and return what it prints, without headings."""


def control_failed(arguments: tuple[str, ...], status: int | None, output: str) -> SandboxError:
    """Return the error of a rabbitmqctl that failed."""
    command = " ".join(("rabbitmqctl", *arguments))
    return SandboxError(f"{command} ended with status {status}.\n{output.strip()}")


def exists_already(name: str) -> SandboxError:
    """Return the error of a virtual host that somebody else has made."""
    return SandboxError(f"The virtual host {name!r} exists already.")


@dataclass(frozen=True, slots=True)
class CommandAdministration:
    """Administers a broker by a rabbitmqctl of this machine."""

    program: str
    environment: Mapping[str, str]

    def control(self, *arguments: str) -> str:
        """Run rabbitmqctl and return what it prints, without headings."""
        done = run(
            *(self.program, "--silent", *arguments),
            environment=self.environment,
            seconds=CONTROL_SECONDS,
        )
        if done.returncode != 0:
            raise control_failed(arguments, done.returncode, done.stdout + done.stderr)
        return done.stdout

    def add_virtual_host(self, name: str, user: str) -> None:
        """Create a virtual host in which the user may do everything."""
        if name in self.control("list_vhosts", "name").splitlines():
            raise exists_already(name)
        self.control("add_vhost", name)
        self.control("set_permissions", "-p", name, user, ".*", ".*", ".*")

    def delete_virtual_host(self, name: str) -> None:
        """Delete a virtual host with all that is in it."""
        self.control("delete_vhost", name)

    def serves(self, port: int) -> bool:
        """Whether the broker that rabbitmqctl reaches is the one that listens on the port."""
        try:
            status = json.loads(self.control("status", "--formatter", "json"))
        except (SandboxError, ValueError):
            return False
        return any(listener.get("port") == port for listener in status.get("listeners", ()))
