"""One module a group of tables; each class that names a `table` is that table's repository, found by its being here.

A table without a class has a repository all the same (`repository_of`): a class is for what only its table can do.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from worker import families
from worker.repositories.errors import BadQuery
from worker.repositories.repository import EntityRepository, Repository, generic
from worker.store.schema import Kind, tables_of_kind

_BASES = (Repository, EntityRepository)


@cache
def repositories() -> Mapping[str, type[Repository]]:
    """The repository class of every fact and entity, by table."""
    families.families()  # completes the metadata
    found = {
        table.name: generic(table)
        for kind in (Kind.ENTITY, Kind.FACT)
        for table in tables_of_kind(kind)
    }
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for one in vars(module).values():
            if isinstance(one, type) and issubclass(one, Repository) and one not in _BASES:
                found[one.table.name] = one
    return found


def repository_of(table: str) -> type[Repository]:
    """The repository class of a table. Raises BadQuery naming those that there are."""
    if table not in repositories():
        raise BadQuery(
            f"there is no table {table!r} to read; there are: {', '.join(repositories())}"
        )
    return repositories()[table]
