"""Finds every contract in this package: which family owns which types, queues and routing keys.

Adding a module that defines `FAMILY` is all it takes. Promises that a type, a family name or a routing key stands in
one place only: a gap or an overlap fails at import, not in production.
"""

import importlib
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import contracts
from contracts.envelope import EventData


class RegistryError(Exception):
    """Two contract modules claim the same name, type or routing key, or no queue would get a type; rename one."""


@dataclass(frozen=True)
class ContractFamily:
    """A family: its name (queue `worker.<name>`), its topic routing keys, and the contract of each of its types."""

    name: str
    routing_keys: tuple[str, ...]
    contracts: tuple[type[EventData], ...]

    @property
    def types(self) -> Mapping[str, type[EventData]]:
        """Event type to contract."""
        return {contract.event_type: contract for contract in self.contracts}


@cache
def families() -> Mapping[str, ContractFamily]:
    """Every family by name, in name order."""
    found: dict[str, ContractFamily] = {}
    owners: dict[str, str] = {}
    for info in pkgutil.iter_modules(contracts.__path__):
        if info.name == "client" or info.ispkg:  # the one module that may need more than pydantic
            continue
        family = getattr(importlib.import_module(f"contracts.{info.name}"), "FAMILY", None)
        if isinstance(family, ContractFamily):
            _claim(family, owners)
            found[family.name] = family
    _check_routes(found)
    return dict(sorted(found.items()))


def _claim(family: ContractFamily, owners: dict[str, str]) -> None:
    """Register what a family owns, refusing what another one owns already."""
    names = [contract.event_type for contract in family.contracts]
    for name in [family.name, *family.routing_keys, *names]:
        owner = owners.setdefault(name, family.name)
        if owner != family.name or names.count(name) > 1:
            raise RegistryError(f"{name!r} is claimed by {owner!r} and {family.name!r}")


def _check_routes(found: Mapping[str, ContractFamily]) -> None:
    """Every type must reach the queue of its own family, and no other."""
    for owner in found.values():
        for name in owner.types:
            reached = [
                family.name
                for family in found.values()
                if any(_routes(key, name) for key in family.routing_keys)
            ]
            if reached != [owner.name]:
                raise RegistryError(f"{name!r} of {owner.name!r} would reach the queues {reached}")


def _routes(key: str, name: str) -> bool:
    """Whether a topic binding (`*` one word, `#` any number of them) takes a routing key."""
    pattern = re.escape(key).replace(r"\.\#", r"(\.[^.]+)*").replace(r"\*", r"[^.]+")
    return re.fullmatch(pattern.replace(r"\#", ".*"), name) is not None


@cache
def contract_types() -> Mapping[str, tuple[ContractFamily, type[EventData]]]:
    """Every event type with its family and its contract."""
    return {
        name: (family, contract)
        for family in families().values()
        for name, contract in family.types.items()
    }
