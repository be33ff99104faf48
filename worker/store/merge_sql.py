"""The rule of merge.py as SQL: statements that merge folded rows and placeholders into a table.

Generated from the same declaration. `t` is the stored row, `excluded` the folded batch, `u` the arrays as rows.
"""

from typing import Any

from sqlalchemy import Column

from worker.store.bulk import literal_default, rows_of
from worker.store.declaration import Entity


def upsert_columns(entity: Entity) -> tuple[str, ...]:
    """The columns that `upsert_sql` takes arrays for, in order."""
    return (
        entity.key,
        "tenant_id",
        *entity.ranked,
        *(("attempt",) if entity.has_attempts else ()),
        *entity.created_columns,
        *(name for name in entity.own_columns if name not in (*entity.ranked, "attempt")),
        "clocks",
        "placeholder",
        "created_at",
        "version",
    )


def upsert_sql(entity: Entity) -> str:
    """One statement that merges folded rows into the table, in the order of the arrays."""
    table = entity.table
    names = upsert_columns(entity)
    selected = [literal_default(table.c[name], f"u.{_q(name)}") for name in names]
    updates = [
        f"{_q(name)} = {_merged(entity, name)}"
        for name in names
        if name not in (entity.key, "tenant_id")
    ]
    return (
        f"INSERT INTO {table.name} AS t ({', '.join(map(_q, names))}) "  # noqa: S608 (names from the declaration)
        f"SELECT {', '.join(selected)} FROM {rows_of([table.c[name] for name in names])} "
        f"WHERE u.version > 0 OR {_is_news(entity)} "
        f"ORDER BY u.ordinality ON CONFLICT ({entity.key}, tenant_id) DO UPDATE SET {', '.join(updates)}"
    )


def placeholder_columns(entity: Entity) -> tuple[Column[Any], ...]:
    """The columns that `placeholder_sql` takes arrays for, in order."""
    return tuple(entity.table.c[name] for name in (entity.key, "tenant_id", "created_at"))


def placeholder_sql(entity: Entity) -> str:
    """One statement that makes rows for entities which were only named; existing rows are touched as little as can be."""
    table, key = entity.table, entity.key
    source = rows_of(placeholder_columns(entity))
    return (
        f"INSERT INTO {table.name} AS t ({_q(key)}, tenant_id, created_at, placeholder) "  # noqa: S608 (as above)
        f"SELECT u.{_q(key)}, u.tenant_id, u.created_at, true FROM {source} "
        f"WHERE {_is_news(entity)} ORDER BY u.ordinality ON CONFLICT ({_q(key)}, tenant_id) DO UPDATE SET created_at = "
        "excluded.created_at WHERE t.placeholder AND excluded.created_at < t.created_at"
    )


def _is_news(entity: Entity) -> str:
    """Whether a row that only names an entity would change anything: most parents are there, and stay untouched.

    OFFSET keeps it a look by key for each row: as a join, planned while the table was still small, it reads all of it.
    """
    key = _q(entity.key)
    return (
        f"NOT EXISTS (SELECT FROM {entity.table.name} p WHERE p.{key} = u.{key} "
        "AND p.tenant_id = u.tenant_id AND (NOT p.placeholder OR p.created_at <= u.created_at) OFFSET 0)"
    )


def _merged(entity: Entity, name: str) -> str:
    """The value of a column after the merge: t is the stored row, excluded the folded batch."""
    ours, theirs = f"t.{_q(name)}", f"excluded.{_q(name)}"
    if name in _SIMPLE:
        return _SIMPLE[name]
    if name == "clocks":
        return _merged_clocks(entity)
    if name == "created_at":
        otherwise = f"WHEN t.placeholder THEN LEAST({ours}, {theirs}) ELSE {ours}"
        return f"CASE WHEN {_wins('created')} THEN {theirs} {otherwise} END"
    if name == entity.if_empty:
        return _merged_end(entity, name)
    if name in entity.attempt_owned:
        return (
            f"CASE WHEN {_wins(name)} THEN {_if_current('excluded', name, theirs)} "
            f"ELSE {_if_current('t', name, ours)} END"
        )
    register = "created" if name in entity.created_columns else name
    return f"CASE WHEN {_wins(register)} THEN {theirs} ELSE {ours} END"


_SIMPLE = {
    "attempt": "GREATEST(t.attempt, excluded.attempt)",
    "version": "t.version + excluded.version",
    "placeholder": "t.placeholder AND excluded.placeholder",
}


def _merged_clocks(entity: Entity) -> str:
    registers = ["created", *entity.ranked, *entity.own_columns]
    registers += ["ended"] if entity.if_empty else []
    pairs = ", ".join(f"'{name}', {_larger(name)}" for name in dict.fromkeys(registers))
    return f"jsonb_strip_nulls(jsonb_build_object({pairs}))"


def _merged_end(entity: Entity, name: str) -> str:
    own, ended = _larger(name), _larger("ended")
    if name in entity.attempt_owned:
        return (
            f"CASE WHEN {_attempt_of(own)} >= {_CURRENT} THEN {_time_of(own)} "
            f"WHEN {_attempt_of(ended)} >= {_CURRENT} THEN {_time_of(ended)} END"
        )
    return f"COALESCE({_time_of(own)}, {_time_of(ended)})"


_CURRENT = _SIMPLE["attempt"]


def _if_current(row: str, register: str, value: str) -> str:
    return f"CASE WHEN {_attempt_of(_clock_of(row, register))} >= {_CURRENT} THEN {value} END"


def _clock_of(row: str, register: str) -> str:
    return f"({row}.clocks->>'{register}' COLLATE \"C\")"


def _larger(register: str) -> str:
    return f"GREATEST({_clock_of('t', register)}, {_clock_of('excluded', register)})"


def _wins(register: str) -> str:
    return f"{_clock_of('excluded', register)} > COALESCE({_clock_of('t', register)}, '')"


def _attempt_of(text: str) -> str:
    return f"left({text}, 10)::bigint"


def _time_of(text: str) -> str:
    return f"(substr({text}, 13, 26) || '+00')::timestamptz"


def _q(name: str) -> str:
    return f'"{name}"'
