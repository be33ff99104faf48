"""One run: lines to messages, answers to counts.

Promises: a line that cannot be published is named and hides none behind it; every event is counted once, however often
it is sent or answered.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from contracts.envelope import CONTENT_TYPE, CONTENT_TYPE_BATCH
from contracts.registry import contract_types
from worker.broker import topology
from worker.broker.outgoing import Fate, Outgoing
from worker.broker.pace import Pace
from worker.broker.sender import Sender
from worker.errors import Misconfigured
from worker.publishing.lines import Line, read_line
from worker.publishing.published import Published

_BATCH_BYTES = 1_000_000


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
        user_id: str | None = None,
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
            user_id=user_id,
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
