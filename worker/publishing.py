"""Publishes a file of events, one a line, and hears what became of each.

Owns how a line becomes a message and how answers are counted. Promises: whatever a worker can judge is published, also
what it will reject; a line that cannot be routed is named and hides none behind it; every event is counted once.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Self, TypeGuard

import orjson

from contracts.envelope import CONTENT_TYPE, CONTENT_TYPE_BATCH
from contracts.limits import MAX_NESTING
from contracts.registry import contract_types
from worker.broker import topology
from worker.broker.pace import Pace
from worker.broker.sender import Fate, Outgoing, Sender
from worker.errors import Misconfigured

_BATCH_BYTES = 1_000_000
_READ_BYTES = 256 * 1024
_MOST_NAMED = 1000
_LONGEST_TYPE = 255
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}:]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Line:
    """One line that can be published. `groupable`: it can share a body without harm to its neighbours."""

    number: int
    body: bytes
    type: str
    events: int = 1
    batch: bool = False
    groupable: bool = True
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that was not published, or not stored, and why."""

    line: int
    why: str


@dataclass
class Published:
    """What became of the events so far."""

    lines: int = 0
    events: int = 0
    """Events that were handed over."""
    accepted: int = 0
    """Of these, the ones that the broker has."""
    bad_lines: int = 0
    not_accepted: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    """Events by what the workers said: persisted, duplicate, rejected."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Rejected events by reason."""
    problems: list[Problem] = field(default_factory=list)
    """The first thousand of them."""
    unanswered: int = 0
    complete: bool = True
    """Whether the file was read to its end."""

    def name(self, line: int, why: str) -> None:
        """Remember a problem, if there are not too many."""
        if len(self.problems) < _MOST_NAMED:
            self.problems.append(Problem(line, why))


def read_line(number: int, raw: bytes) -> Line:
    """A line as it can be published. Raises ValueError where nobody can say where to."""
    groupable = raw.count(b"[") + raw.count(b"{") <= MAX_NESTING
    try:
        value: Any = orjson.loads(raw)
    except orjson.JSONDecodeError:
        groupable = False
        value = _parse_leniently(raw)
    events = value if isinstance(value, list) and value else [value]
    first = events[0]
    name = first.get("type") if isinstance(first, dict) else None
    if not _is_routing_key(name):
        raise ValueError("no event: it has no type that can be a routing key")
    if isinstance(value, list):
        return Line(number, raw, name, events=len(value), batch=True, groupable=False)
    event_id = first.get("id")
    return Line(
        number, raw, name, groupable=groupable, id=event_id if isinstance(event_id, str) else None
    )


def _is_routing_key(name: Any) -> TypeGuard[str]:
    """Whether this is text that AMQP has room for."""
    try:
        return isinstance(name, str) and len(name.encode()) <= _LONGEST_TYPE
    except UnicodeEncodeError:
        return False


def _parse_leniently(raw: bytes) -> Any:
    """What a worker will call undecodable, but can still be routed: NaN, 1e400, lone surrogates, any depth."""
    try:
        return json.loads(
            raw, parse_int=len, parse_float=len
        )  # of any length: nobody needs the value
    except RecursionError:
        return {"type": _shallow_type(raw.decode())}
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None


def _shallow_type(text: str) -> str | None:
    """The member `type` of an object that is nested too deeply to be parsed."""
    depth = 0
    previous = ["", ""]
    for piece in _TOKENS.findall(text):
        if depth == 1 and previous == ['"type"', ":"] and piece.startswith('"'):
            return str(json.loads(piece))
        depth += (piece in "[{") - (piece in "]}")
        previous = [previous[1], piece]
    return None


async def lines_of(file: BinaryIO) -> AsyncIterator[tuple[int, bytes]]:
    """The lines of a file with their numbers, without blank ones; read aside, so that answers are heard meanwhile."""
    number = 0
    rest = b""
    while True:
        piece = await asyncio.to_thread(_read, file)
        pieces = (rest + piece).split(b"\n")
        rest = pieces.pop()
        if not piece:
            pieces.append(rest)
        for line in pieces:
            number += 1
            stripped = line.strip()
            if number == 1:
                stripped = stripped.removeprefix(b"\xef\xbb\xbf")
            if stripped:
                yield number, stripped
        if not piece:
            return


def _read(file: BinaryIO) -> bytes:
    """What is there: a pipe gives what it has."""
    read1 = getattr(file, "read1", None)
    piece: bytes = read1(_READ_BYTES) if read1 else file.read(_READ_BYTES)
    return piece


@dataclass
class _Parcel:
    """What one message holds, and what was answered to it so far."""

    lines: list[Line]
    events: int
    answered: int = 0
    answers: set[str] = field(default_factory=set)


class Publishing:
    """One run of `worker publish`. `done` tells how far it came, also where it ended early."""

    def __init__(
        self,
        broker_url: str,
        *,
        name: str,
        rate: float | None = None,
        batch: int = 1,
        wait: bool = False,
        patience: float = 120,
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.done = Published()
        self._pace = Pace(rate)
        self._batch = batch
        self._advance = advance
        self._parcels: dict[Outgoing, _Parcel] = {}
        self._groups: dict[str, list[Line]] = {}
        self._group_bytes: Counter[str] = Counter()
        self._sender = Sender(
            broker_url,
            name=name,
            on_fate=self._ended,
            on_reply=self._replied if wait else None,
            window=20_000 if wait else 5_000,
            window_bytes=64 * 1024 * 1024,
            patience=patience,
        )

    async def __aenter__(self) -> Self:
        await self._sender.__aenter__()
        if not await topology.exchange_exists(self._sender.connection, topology.MESSAGES):
            await self._sender.__aexit__(None, None, None)
            raise Misconfigured(
                f"there is no exchange {topology.MESSAGES}: run 'worker topology apply'"
            )
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._sender.__aexit__(None, None, None)

    async def run(self, lines: AsyncIterator[tuple[int, bytes]]) -> Published:
        """Publish these lines and wait for the broker, and for workers where that is asked for. Raises Unavailable."""
        async for number, raw in lines:
            self.done.lines += 1
            try:
                line = read_line(number, raw)
            except ValueError as error:
                self.done.bad_lines += 1
                self.done.name(number, str(error))
                continue
            if not await self._take(line):
                self.done.complete = False
                break
        else:
            for family in list(self._groups):
                await self._send(self._groups.pop(family))
        await self._sender.finish()
        self._count_unanswered()
        return self.done

    async def _take(self, line: Line) -> bool:
        """Publish a line, alone or with others of its family. False where nobody has answered for too long."""
        known = contract_types().get(line.type)
        size = len(line.body) + 1
        if self._batch == 1 or known is None or not line.groupable or size > _BATCH_BYTES:
            return await self._send([line])
        family = known[0].name
        sent = True
        if self._group_bytes[family] + size > _BATCH_BYTES:
            sent = await self._flush(family)
        group = self._groups.setdefault(family, [])
        group.append(line)
        self._group_bytes[family] += size
        return sent and (len(group) < self._batch or await self._flush(family))

    async def _flush(self, family: str) -> bool:
        self._group_bytes[family] = 0
        return await self._send(self._groups.pop(family))

    async def _send(self, lines: list[Line]) -> bool:
        first = lines[0]
        whole = len(lines) == 1
        outgoing = Outgoing(
            topology.MESSAGES,
            first.type,
            first.body if whole else b"[" + b",".join(line.body for line in lines) + b"]",
            content_type=CONTENT_TYPE if whole and not first.batch else CONTENT_TYPE_BATCH,
        )
        for _ in lines:
            await self._pace.turn()
        parcel = self._parcels[outgoing] = _Parcel(lines, sum(line.events for line in lines))
        if not await self._sender.send(outgoing):
            del self._parcels[outgoing]
            return False
        self.done.events += parcel.events
        return True

    # --- what became of them ---

    def _ended(self, outgoing: Outgoing) -> None:
        parcel = self._parcels.pop(outgoing)
        if outgoing.fate is Fate.ACCEPTED:
            self.done.accepted += parcel.events
        else:
            self.done.not_accepted += parcel.events
            for line in parcel.lines:
                self.done.name(line.number, outgoing.why)
        self._advance(sum(len(line.body) for line in parcel.lines))

    def _replied(self, outgoing: Outgoing, body: bytes) -> None:
        """Count an answer, once however often it comes; conclude a message whose events are all answered."""
        parcel = self._parcels[outgoing]
        event = orjson.loads(body)
        if event["id"] in parcel.answers:
            return
        parcel.answers.add(event["id"])
        outcome, items = event["data"]["outcome"], event["data"]["items"]
        if outcome == "rejected":
            self._count_rejected(parcel, items)
        else:
            parcel.answered += len(items)
            self.done.outcomes[outcome] += len(items)
        if parcel.answered >= parcel.events:
            self._sender.conclude(outgoing)

    def _count_rejected(self, parcel: _Parcel, items: Iterable[dict[str, Any]]) -> None:
        for item in items:
            # An item without a type is about the body as a whole: every event that was published has one.
            events = parcel.events if item["type"] is None else 1
            parcel.answered += events
            self.done.outcomes["rejected"] += events
            self.done.reasons[item["reason"]] += events
            affected = parcel.lines if item["type"] is None else self._lines(parcel, item["id"])
            for line in affected:
                self.done.name(line.number, f"rejected as {item['reason']}: {_first(item)}")

    def _lines(self, parcel: _Parcel, event_id: str | None) -> list[Line]:
        """The line that an answer is about."""
        if len(parcel.lines) == 1:
            return parcel.lines
        return [line for line in parcel.lines if line.id == event_id][:1]

    def _count_unanswered(self) -> None:
        for outgoing in self._sender.unfinished:
            parcel = self._parcels[outgoing]
            self.done.accepted += parcel.events
            self.done.unanswered += parcel.events - parcel.answered
            for line in parcel.lines[:1]:
                self.done.name(line.number, "no worker has said what became of it")


def _first(item: dict[str, Any]) -> str:
    """The first error of a rejected item, with its place."""
    if not item["errors"]:
        return "no error is named"
    error = item["errors"][0]
    place = ".".join(str(part) for part in error["loc"])
    return f"{place}: {error['msg']}" if place else str(error["msg"])
