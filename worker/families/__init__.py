"""The only place that grows: one module a family, found by its being here. Importing this registers every table.

Promises that contracts and tables fit: start-up fails on a gap or an overlap.
"""

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache

from contracts import registry
from worker.errors import Misconfigured

# lifecycle_events, accounts and the operational tables belong to no family; named so that the metadata is complete.
from worker.store import accounts, lifecycle, operational  # noqa: F401
from worker.store.declaration import Family
from worker.store.plan import Plan, make_plan

FOUNDATION_REVISIONS = frozenset({"0001", "0005", "0009", "0010", "0011"})
"""The migrations that the tables of no family need."""

_modules = [
    importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)
]


@cache
def families() -> Mapping[str, Family]:
    """Every family by name. Raises Misconfigured where two claim the same, or contracts and tables do not match."""
    try:
        contracts = registry.families()
    except registry.RegistryError as error:
        raise Misconfigured(f"the contracts do not fit together: {error}") from error
    found = {module.FAMILY.name: module.FAMILY for module in _modules if hasattr(module, "FAMILY")}
    alone = found.keys() ^ contracts.keys()
    if alone:
        raise Misconfigured(
            f"only one of contracts/ and worker/families/ knows the family {', '.join(sorted(alone))}"
        )
    return found


@cache
def plan() -> Plan:
    """Where every event type of every family goes."""
    return make_plan(families().values())


def required_revisions(names: Iterable[str] | None = None) -> set[str]:
    """The migrations that these families (all, if none are named) need."""
    chosen = families() if names is None else {n: families()[n] for n in names if n in families()}
    return {*FOUNDATION_REVISIONS} | {family.revision for family in chosen.values()}
