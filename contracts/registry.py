"""Finds every contract in this package: which family owns which types, queues and routing keys.

Adding a module that defines `FAMILY` is all it takes. Promises that a type, a family name or a routing key stands in
one place only: a gap or an overlap fails at import, not in production.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import contracts
from contracts.envelope import EventData


class RegistryError(Exception):
    """Two contract modules claim the same name, type or routing key; rename one of them."""


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
    return dict(sorted(found.items()))


def _claim(family: ContractFamily, owners: dict[str, str]) -> None:
    """Register what a family owns, refusing what another one owns already."""
    names = [contract.event_type for contract in family.contracts]
    for name in [family.name, *family.routing_keys, *names]:
        owner = owners.setdefault(name, family.name)
        if owner != family.name or names.count(name) > 1:
            raise RegistryError(f"{name!r} is claimed by {owner!r} and {family.name!r}")


@cache
def contract_types() -> Mapping[str, tuple[ContractFamily, type[EventData]]]:
    """Every event type with its family and its contract."""
    return {
        name: (family, contract)
        for family in families().values()
        for name, contract in family.types.items()
    }
