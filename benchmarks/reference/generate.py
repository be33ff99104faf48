"""Writes the tables of the reference program from the worker's own declarations: `python -m benchmarks.reference.generate`.

Owns plan.c, which is made at build time and never committed, so that the reference fills the same columns and runs the
same merge as the worker, whatever the worker's declarations become.
"""

import sys
from collections.abc import Iterable

from sqlalchemy import Column, types
from sqlalchemy.dialects.postgresql import JSONB

from worker import families
from worker.store.bulk import rows_of
from worker.store.declaration import Entity, Fact, Fold, Parent
from worker.store.lifecycle import lifecycle_events
from worker.store.merge_sql import placeholder_columns, placeholder_sql, upsert_columns, upsert_sql
from worker.store.plan import make_plan

_KINDS = (
    (JSONB, "K_JSON"),
    (types.Uuid, "K_UUID"),
    (types.Boolean, "K_BOOL"),
    (types.BigInteger, "K_INT8"),
    (types.Integer, "K_INT4"),
    (types.Float, "K_FLOAT8"),
    (types.Numeric, "K_TEXT"),  # staged as text, cast by the merge
    (types.DateTime, "K_TIME"),
    (types.LargeBinary, "K_BYTES"),
    (types.String, "K_TEXT"),
)
MEASURED = ("task-lifecycle", "execution-log", "trajectory")
"""The families of the loads: the reference does what is measured, no more."""
_STAGED = {
    "K_JSON": "jsonb",
    "K_UUID": "uuid",
    "K_BOOL": "bool",
    "K_INT8": "int8",
    "K_INT4": "int4",
    "K_FLOAT8": "float8",
    "K_TEXT": "text",
    "K_TIME": "timestamptz",
}
_FACT_SOURCES = {
    "tenant_id": "S_TENANT",
    "event_id": "S_EVENT_ID",
    "source": "S_SOURCE",
    "extensions": "S_EXTENSIONS",
    "content_digest": "S_DIGEST",
}
_LIFECYCLE_SOURCES = {
    **_FACT_SOURCES,
    "time": "S_EVENT_TIME",
    "created_at": "S_EVENT_TIME",
    "entity_type": "S_ENTITY_TYPE",
    "entity_id": "S_ENTITY_ID",
    "type": "S_TYPE",
    "data": "S_WHOLE_DATA",
}
_ROLES = {
    "tenant_id": "R_TENANT",
    "status": "R_STATUS",
    "attempt": "R_ATTEMPT",
    "clocks": "R_CLOCKS",
    "placeholder": "R_PLACEHOLDER",
    "created_at": "R_CREATED_AT",
    "version": "R_VERSION",
}


def _kind(column: Column[object]) -> str:
    return next(name for kind, name in _KINDS if isinstance(column.type, kind))


def _is_decimal(column: Column[object]) -> bool:
    return isinstance(column.type, types.Numeric) and not isinstance(column.type, types.Float)


def _c(text: str | None) -> str:
    """A C string."""
    return "NULL" if text is None else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _flag(value: object) -> str:
    return "true" if value else "false"


def _array(kind: str, name: str, items: Iterable[str]) -> str:
    """A C array; never empty, since C has none of these."""
    listed = ",\n    ".join(items)
    return f"static const {kind} {name}[] = {{\n    {listed or '{0}'}\n}};\n"


class Generator:
    """The tables of the worker's plan as C."""

    def __init__(self) -> None:
        plan = make_plan(families.families()[name] for name in MEASURED)
        self._facts: tuple[Fact, ...] = plan.fact_order
        self._entities: tuple[Entity, ...] = plan.entity_order
        self._place = {entity.table.name: at for at, entity in enumerate(self._entities)}
        self._parts = ['#include <stddef.h>\n#include "plan.h"\n']

    def text(self) -> str:
        """All of plan.c."""
        rows = [
            self._lifecycle(),
            *(self._fact(at, fact) for at, fact in enumerate(self._facts, 1)),
        ]
        entities = [self._entity(at, entity) for at, entity in enumerate(self._entities)]
        events = list(self._events())
        for kind, name, items in (
            ("struct fact", "fact", rows),
            ("struct entity", "entity", entities),
            ("struct event", "event", events),
        ):
            plural = {"fact": "facts", "entity": "entities", "event": "events"}[name]
            self._parts.append(_array(kind, plural, items).removeprefix("static "))
            self._parts.append(f"const int {name}_count = {len(items)};\n")
            if name == "fact":
                self._parts.append(self._folds())
        return "\n".join(self._parts)

    def _columns(self, name: str, columns: Iterable[str]) -> None:
        self._parts.append(_array("struct column", name, columns))

    def _lifecycle(self) -> str:
        columns = [c for c in lifecycle_events.columns if c.name != "recorded_at"]
        self._columns(
            "columns_0",
            [
                f"{{{_c(c.name)}, {_kind(c)}, {_LIFECYCLE_SOURCES.get(c.name, 'S_DATA')}, false, NULL}}"
                for c in columns
            ],
        )
        self._parts.append('static const char *const keys_0[] = {"event_id"};\n')
        copy = _copy(lifecycle_events.name, [c.name for c in columns])
        return f"{{{_c(copy)}, {len(columns)}, columns_0, 0, NULL, 1, keys_0}}"

    def _fact(self, at: int, fact: Fact) -> str:
        self._columns(f"columns_{at}", [_fact_column(fact, column) for column in fact.columns])
        keys = ", ".join(_c(name) for name in fact.key)
        self._parts.append(f"static const char *const keys_{at}[] = {{{keys}}};\n")
        self._parts.append(_array("struct parent", f"parents_{at}", self._parents(fact.parents)))
        copy = _copy(fact.table.name, [column.name for column in fact.columns])
        return (
            f"{{{_c(copy)}, {len(fact.columns)}, columns_{at}, {len(fact.parents)}, parents_{at}, "
            f"{len(fact.key)}, keys_{at}}}"
        )

    def _parents(self, parents: Iterable[Parent]) -> list[str]:
        return [f"{{{_c(p.column)}, {self._place[p.table.name]}}}" for p in parents]

    def _entity(self, at: int, entity: Entity) -> str:
        registers = _registers(entity)
        columns = upsert_columns(entity)
        self._parts.append(
            f"static const char *const registers_{at}[] = {{{', '.join(map(_c, registers))}}};\n"
        )
        described = [_entity_column(entity, name, registers) for name in columns]
        described.append('{"ordinality", K_INT4, R_ORDINALITY, -1, false, false}')
        self._parts.append(_array("struct entity_column", f"entity_columns_{at}", described))
        ended = registers.index("ended") if "ended" in registers else -1
        sql = ",\n        ".join(map(_c, _entity_statements(entity)))
        return (
            f"{{{_c(entity.name)}, {_c(entity.key)}, {_flag(entity.has_attempts)}, {len(registers)}, registers_{at}, "
            f"{ended}, {len(described)}, entity_columns_{at},\n        {sql}}}"
        )

    def _folds(self) -> str:
        parts = []
        for number, (_, entity, fold) in enumerate(self._all_folds()):
            columns = upsert_columns(entity)
            sets = [str(columns.index(name)) for name in fold.sets]
            ats = [str(columns.index(name)) for name in fold.at]
            named = [p for p in entity.parents if p.column in fold.sets]
            parts += [
                f"static const int sets_{number}[] = {{{', '.join(sets) or '0'}}};",
                f"static const int ats_{number}[] = {{{', '.join(ats) or '0'}}};",
                _array("struct parent", f"fold_parents_{number}", self._parents(named)),
                (
                    f"static const struct fold fold_{number} = {{{self._place[entity.table.name]}, {_c(fold.status)}, "
                    f"{entity.rank.get(fold.status or '', 0)}, {_flag(fold.creates)}, {_flag(fold.ends)}, "
                    f"{_flag(fold.at_if_empty)}, {len(sets)}, sets_{number}, {len(ats)}, ats_{number}, "
                    f"{len(named)}, fold_parents_{number}}};\n"
                ),
            ]
        return "\n".join(parts)

    def _all_folds(self) -> list[tuple[str, Entity, Fold]]:
        return [
            (event, entity, fold)
            for entity in self._entities
            for event, fold in entity.folds.items()
        ]

    def _events(self) -> Iterable[str]:
        family_of = {
            event: family.name
            for family in families.families().values()
            for event in family.contract.types
        }
        for at, fact in enumerate(self._facts, 1):
            yield f"{{{_c(fact.event)}, {_c(family_of[fact.event])}, &facts[{at}], NULL}}"
        for number, (event, _, _) in enumerate(self._all_folds()):
            yield f"{{{_c(event)}, {_c(family_of[event])}, &facts[0], &fold_{number}}}"


def _copy(table: str, names: Iterable[str]) -> str:
    return f"COPY {table} ({', '.join(_q(name) for name in names)}) FROM STDIN (FORMAT binary)"


def _q(name: str) -> str:
    return f'"{name}"'


def _fact_column(fact: Fact, column: Column[object]) -> str:
    name = column.name
    source = "S_KEY" if name in fact.key else _FACT_SOURCES.get(name, "S_DATA")
    timed = name in fact.event_time or name == "created_at"
    default = getattr(getattr(column.server_default, "arg", None), "text", None)
    default = default or getattr(column.server_default, "arg", None)
    otherwise = str(default).partition("::")[0].strip("'") if default and not timed else None
    return f"{{{_c(name)}, {_kind(column)}, {source}, {_flag(timed)}, {_c(otherwise)}}}"


def _registers(entity: Entity) -> list[str]:
    names = ["created", "status", *entity.own_columns, *(["ended"] if entity.if_empty else [])]
    return list(dict.fromkeys(names))


def _entity_column(entity: Entity, name: str, registers: list[str]) -> str:
    kind = _kind(entity.table.c[name])
    if name == entity.key:
        role = "R_KEY"
    elif name in _ROLES:
        role = _ROLES[name]
    else:
        role = "R_CREATED" if name in entity.created_columns else "R_OWN"
    register = registers.index(name) if name in registers else -1
    owned = _flag(name in entity.attempt_owned)
    return f"{{{_c(name)}, {kind}, {role}, {register}, {owned}, {_flag(name == entity.if_empty)}}}"


def _entity_statements(entity: Entity) -> list[str]:
    """The staging tables, their COPY, and the worker's own statements reading from them."""
    table, key = entity.table, entity.key
    columns = upsert_columns(entity)
    stage, named = f"stage_{table.name}", f"named_{table.name}"
    types_ = ", ".join(f"{_q(name)} {_STAGED[_kind(table.c[name])]}" for name in columns)
    listed = ", ".join(
        _q(name) + ("::numeric" if _is_decimal(table.c[name]) else "") for name in columns
    )
    merge = upsert_sql(entity).replace(
        rows_of([table.c[name] for name in columns]),
        f"(SELECT {listed}, ordinality FROM {stage}) AS u",  # noqa: S608 (names of the model)
    )
    placeholders = placeholder_sql(entity).replace(
        rows_of(placeholder_columns(entity)), f"{named} AS u"
    )
    if "$1" in merge + placeholders:
        raise SystemExit("the worker's merge no longer reads from rows_of(): adapt this generator")
    names = (key, "tenant_id", "created_at", "ordinality")
    return [
        f"CREATE TEMP TABLE {stage} ({types_}, ordinality int4) ON COMMIT DELETE ROWS",
        _copy(stage, (*columns, "ordinality")),
        merge,
        (
            f"CREATE TEMP TABLE {named} ({_q(key)} uuid, tenant_id text, created_at timestamptz, ordinality int4) "
            "ON COMMIT DELETE ROWS"
        ),
        _copy(named, names),
        placeholders,
    ]


if __name__ == "__main__":
    sys.stdout.write(Generator().text())
