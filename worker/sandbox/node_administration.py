"""Administering a private node: by rabbitmqctl, and by erl_call where milliseconds count.

Owns the Erlang expressions that the sandbox evaluates in its own nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.sandbox.administration import CommandAdministration, exists_already
from worker.sandbox.processes import run

if TYPE_CHECKING:
    from collections.abc import Mapping

EVALUATE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class NodeAdministration:
    """Administers a private node: by rabbitmqctl, and by erl_call where milliseconds count."""

    commands: CommandAdministration
    user: str
    environment: Mapping[str, str]
    erl_call: str | None

    def control(self, *arguments: str) -> str:
        """Run rabbitmqctl on the node and return what it prints, without headings."""
        return self.commands.control(*arguments)

    def add_virtual_host(self, name: str, user: str) -> None:
        """Create a virtual host in which the user may do everything."""
        place, who, all_ = _erlang(name), _erlang(user), _erlang(".*")
        result = self.evaluate(
            f"case rabbit_vhost:exists({place}) of true -> exists; false -> "
            f"ok = rabbit_vhost:add({place}, {who}), "
            f"rabbit_auth_backend_internal:set_permissions("
            f"{who}, {place}, {all_}, {all_}, {all_}, {who}) end."
        )
        if result == "exists":
            raise exists_already(name)
        if result != "ok":
            self.commands.add_virtual_host(name, user)

    def delete_virtual_host(self, name: str) -> None:
        """Delete a virtual host with all that is in it."""
        if self.evaluate(f"rabbit_vhost:delete({_erlang(name)}, {_erlang(self.user)}).") is None:
            self.commands.delete_virtual_host(name)

    def evaluate(self, expressions: str) -> str | None:
        """Evaluate Erlang in the node: 20 ms, where rabbitmqctl takes a second to start.

        None means that it could not be done, or ended in an error.
        """
        if self.erl_call is None:
            return None
        done = run(
            *(self.erl_call, "-r", "-sname", self.environment["RABBITMQ_NODENAME"], "-e"),
            environment=self.environment,
            text=f"{expressions}\n",
            seconds=EVALUATE_SECONDS,
        )
        if done.returncode != 0 or not done.stdout.startswith("{ok,"):
            return None
        return done.stdout.removeprefix("{ok,").rstrip("}").strip()


def _erlang(text: str) -> str:
    """Return a text as an Erlang binary, whatever characters are in it: <<97,98>>."""
    return f"<<{','.join(map(str, text.encode()))}>>"
