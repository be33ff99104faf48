"""Mending a letter's body: changes, what the worker will say to them, and storing them beside the original.

Promises: the original body stays as it came; what is stored is what will be published, byte for byte; nobody overwrites
another's edit unseen.
"""

import json
from collections.abc import Sequence
from typing import Any

from contracts import checking, registry
from worker.body import dump, parse
from worker.content_encoding import Undecodable
from worker.dead_letters import bodies
from worker.dead_letters.letter import Letter
from worker.decode import Decoder
from worker.errors import Misconfigured
from worker.message import Delivery, Properties, Rejected
from worker.store.database import Database


def to_edit(letter: Letter, max_bytes: int) -> bytes:
    """What an editor opens: the body as it was last edited, JSON indented."""
    body = letter.text(max_bytes) if letter.edited_body is None else letter.edited_body
    text = bodies.as_text(body)
    return body if text is None else bodies.pretty(text).encode()


def changed(body: bytes, settings: Sequence[str], removals: Sequence[str]) -> bytes:
    """The JSON body with members set (`data.steps.0.state=done`) and removed (`data.surprise`). Raises Misconfigured."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Misconfigured(
            f"the body is not JSON ({error}): give a whole one with --body"
        ) from None
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise Misconfigured(f"--set {setting!r}: write PATH=VALUE, such as data.step_number=3")
        container, name = _place(value, path)
        container[name] = _value(text)
    for path in removals:
        container, name = _place(value, path)
        try:
            del container[name]
        except (KeyError, IndexError):
            raise Misconfigured(f"--unset {path}: the body has no such member") from None
    return _dumped(value)


def _place(value: Any, path: str) -> tuple[Any, Any]:
    """The object or list that a path ends in, and the name or index in it. Raises Misconfigured."""
    names = path.split(".")
    for depth, name in enumerate(names):
        last = depth == len(names) - 1
        step: str | int = name
        if isinstance(value, list):
            if not name.isdecimal() or int(name) >= len(value):
                raise Misconfigured(f"{path}: {name!r} is no index of a list of {len(value)}")
            step = int(name)
        elif not isinstance(value, dict):
            raise Misconfigured(
                f"{path}: {'.'.join(names[:depth]) or 'the body'} is no object or list"
            )
        elif not last and name not in value:
            value[name] = {}
        if last:
            return value, step
        value = value[step]
    raise AssertionError("a path has at least one name")


def _value(text: str) -> Any:
    """The value as JSON; what is no JSON is a string."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _dumped(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, indent=2).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can spell
        return json.dumps(value, indent=2).encode()


def check(body: bytes, max_bytes: int) -> list[dict[str, Any]]:
    """What the worker will refuse in this body, as {loc, msg, type}; in a batch the place begins with the index."""
    try:
        value, _ = parse(body)
    except Undecodable as error:
        return [{"loc": [], "msg": str(error), "type": "undecodable"}]
    found = next((t for t in bodies.event_types(body) if t in registry.contract_types()), None)
    if found is None:
        first = value[0] if isinstance(value, list) and value else value
        return [error.model_dump(mode="json") for error in checking.check_body(dump(first))]
    family, _ = registry.contract_types()[found]
    delivery = Delivery(family.name, 0, False, "", "", body, Properties(), b"")
    return [
        {**error, "loc": [*([] if item.index is None else [item.index]), *error["loc"]]}
        for item in Decoder(family, max_bytes).decode(delivery)
        if isinstance(item, Rejected)
        for error in item.errors
    ]


async def store(database: Database, letter: Letter, body: bytes | None) -> None:
    """Keep this as the letter's edited body (None: none any more). Raises Misconfigured where others were at it."""
    async with database.transaction() as connection:
        status = await connection.execute(
            "UPDATE dead_letters SET edited_body = $2 WHERE id = $1 "
            "AND edited_body IS NOT DISTINCT FROM $3 AND resolution IS NOT DISTINCT FROM $4",
            letter.id,
            body,
            letter.edited_body,
            letter.resolution,
        )
    if status != "UPDATE 1":
        raise Misconfigured(
            f"letter {letter.id} was edited or resolved by somebody else in the meantime: look at it again"
        )
