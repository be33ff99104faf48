"""Growth: rate, cost and memory against backlog, rows, payload, processes and families (`make bench-growth`).

Every look at a point stands beside one at a base in the same minutes, and the median of their ratios is reported, with
its spread. Backlogs of a million are made and checked by count, not by content; payloads above 64 KB have fewer
messages, or the broker would need 80 GB.
"""

import json
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from benchmarks import document, keys, verify
from benchmarks.contenders import Contender
from benchmarks.contenders.ours import Ours
from benchmarks.events import Event, Maker
from benchmarks.figures import Ratio, spread
from benchmarks.load import Body, Load
from benchmarks.measure import Measurement, measure_in
from benchmarks.retold import retold
from benchmarks.services import Services
from contracts.identifiers import uuid7
from contracts.registry import families

_BASE = 20_000
_KIB = 1024
_LOOKS = 3
_LOOKS_AT_ROWS = 5  # filling them has taken minutes, a look takes seconds
_ROWS = (0, 1_000_000, 5_000_000, 20_000_000)
_ROWS_OF_KEYS = 2_000_000  # in each of three tables
_WANTED = {("backlog", "1,000,000"): 0.9, ("rows", "5,000,000"): 0.9}
"""What the ratio to the base has to be at least."""
_HEADS = ("axis", "at", "messages", "messages/s", "MB/s", "to base", "spread", "wanted", "CPU s for 10,000", "MiB")  # fmt: skip


class Stream(Load):
    """Logs that are made while they are published; only the last are kept."""

    def __init__(self, count: int, made: Callable[[int], Iterable[Event]]) -> None:
        super().__init__("logs", (), since=uuid7())
        self._count = count
        self._made = made
        self._bytes = 0

    def __len__(self) -> int:
        return self._count

    @property
    def bodies(self) -> Iterator[Body]:  # type: ignore[override] # they are published as they come
        """What is published, in order."""
        last: deque[Event] = deque(maxlen=20)
        for event in self._made(self._count):
            content = orjson.dumps(event)
            self._bytes += len(content)
            last.append(event)
            yield Body(event["type"], content)
        self.events = list(last)

    @property
    def size(self) -> float:
        """Mean bytes of a body."""
        return self._bytes / self._count

    @property
    def families(self) -> tuple[str, ...]:
        """Logs only."""
        return ("execution-log",)

    @property
    def rows(self) -> Counter[str]:
        """As many rows as messages."""
        return Counter({"execution_logs": self._count})


@dataclass
class Look:
    """A measurement, and the base that was measured just before."""

    found: Measurement
    base: Measurement

    @property
    def ratio(self) -> float:
        """Its rate over the base's."""
        return self.found.rate / self.base.rate


@dataclass
class Point:
    """One point of a curve: several looks at it."""

    axis: str
    at: str
    looks: list[Look]

    @property
    def ratio(self) -> Ratio | None:
        """The rate over the base's; None where no look was as it should be."""
        return spread([look.ratio for look in self.looks if not look.found.problems])

    @property
    def typical(self) -> Measurement:
        """The look with the middle ratio."""
        return sorted(self.looks, key=lambda look: look.ratio)[len(self.looks) // 2].found

    @property
    def met(self) -> str:
        """What is wanted of the ratio, and whether it is so."""
        wanted = _WANTED.get((self.axis, self.at))
        if wanted is None or self.ratio is None:
            return ""
        return f"≥ {wanted}: {'yes' if self.ratio.median >= wanted else 'no'}"


async def main(
    services: Services,
    console: Console,
    folder: Path,
    *,
    most_rows: int = 5_000_000,
    axes: Sequence[str] | None = None,
    write: bool = False,
) -> int:
    """Measure every curve, or only these axes; print it, write it; 1 where some run was not as it should be."""
    wanted = AXES if axes is None else axes
    curves = [_CURVES[axis] for axis in wanted if axis in _CURVES]
    points = [point for curve in curves async for point in curve(services, console, most_rows)]
    if KEYS in wanted:
        chosen = min(most_rows, _ROWS_OF_KEYS)
        rows = await keys.main(services, console, folder, rows=chosen)
        if write:
            document.put(KEYS, document.table(keys.HEADS, rows))
    table = Table(title="Growth", box=None, pad_edge=False, header_style="bold")
    for name in _HEADS:
        table.add_column(name, justify="left" if name in ("axis", "at") else "right")
    lines = [_row(point) for point in points]
    for row in lines:
        table.add_row(*row)
    console.print(table)
    problems = [text for point in points for look in point.looks for text in look.found.problems]
    for text in problems:
        console.print(f"[red]No figure:[/] {text}")
    (folder / "growth.json").write_text(json.dumps([_as_json(point) for point in points], indent=1))
    if write and len(curves) == len(_CURVES):
        document.put("growth", document.table(_HEADS, lines))
    return 1 if problems else 0


def _row(point: Point) -> tuple[str, ...]:
    found, ratio = point.typical, point.ratio
    said = (f"{ratio.median:.2f}x", f"{ratio.lowest:.2f} to {ratio.highest:.2f} ({ratio.rounds})") if ratio else ("-", "")  # fmt: skip
    rate = (f"{found.rate:,.0f}", f"{found.rate * found.bytes_each / 1e6:.1f}")
    cost = (f"{found.cpu_total:.2f}", f"{found.memory_mib:.0f}")
    return (point.axis, point.at, f"{found.messages:,}", *rate, *said, point.met, *cost)


def _as_json(point: Point) -> dict[str, object]:
    return {"axis": point.axis, "at": point.at, "looks": [asdict(look) for look in point.looks]}


Points = AsyncIterator[Point]


async def _backlogs(services: Services, console: Console, _most_rows: int) -> Points:
    for backlog in (10_000, 100_000, 1_000_000):
        make = partial(_logs, backlog)
        yield await _fresh(services, console, "backlog", f"{backlog:,}", Ours("ours"), make, _LOOKS)


async def _payloads(services: Services, console: Console, _most_rows: int) -> Points:
    for size, count in ((1, 10_000), (64, 3_000), (1024, 300), (8000, 40)):
        make = partial(Stream, count, lambda n, size=size: Maker().sized(n, size * _KIB))
        yield await _fresh(services, console, "payload", f"{size:,} KiB", Ours("ours"), make, 1)


async def _families(services: Services, console: Console, _most_rows: int) -> Points:
    """Each alone, and all of them at once."""
    for name, chosen in {**{name: [name] for name in families()}, "all": list(families())}.items():
        make = partial(_retold, chosen)
        yield await _fresh(services, console, "families", name, Ours("ours"), make, _LOOKS)


async def _processes(services: Services, console: Console, _most_rows: int) -> Points:
    for processes in (1, 2, 4, 8):
        worker = Ours(f"ours-{processes}", processes=processes)
        make = partial(_logs, 2 * _BASE)
        yield await _fresh(services, console, "processes", str(processes), worker, make, _LOOKS)


async def _rows(services: Services, console: Console, most_rows: int) -> Points:
    """Filling takes minutes and measuring seconds: all looks at one point stand in the same place."""
    ours = Ours("ours")
    async with services.place() as place:
        for rows in _ROWS:
            if rows > most_rows:
                break
            await keys.fill(place.database, keys.LOGS, rows)
            looks = []
            for _ in range(_LOOKS_AT_ROWS):
                base = await _one(services, ours, _logs(_BASE))
                found = await measure_in(services, place, ours, _logs(_BASE), verify.counted)
                looks.append(Look(found, base))
            yield _said(console, Point("rows", f"{rows:,}", looks))


_CURVES = {
    "backlog": _backlogs,
    "payload": _payloads,
    "families": _families,
    "processes": _processes,
    "rows": _rows,
}
KEYS = "keys"
AXES = (*_CURVES, KEYS)


def _logs(count: int) -> Stream:
    return Stream(count, lambda n: Maker().logs(n))


def _retold(chosen: Sequence[str]) -> Load:
    return Load("families", retold(chosen, _BASE))


async def _fresh(
    services: Services,
    console: Console,
    axis: str,
    at: str,
    contender: Contender,
    load: Callable[[], Load],
    looks: int,
) -> Point:
    """So many looks, each in a place of its own, as its base is."""
    found = []
    for _ in range(looks):
        base = await _one(services, Ours("ours"), _logs(_BASE))
        found.append(Look(await _one(services, contender, load()), base))
    return _said(console, Point(axis, at, found))


async def _one(services: Services, contender: Contender, load: Load) -> Measurement:
    async with services.place() as place:
        return await measure_in(services, place, contender, load, verify.counted)


def _said(console: Console, point: Point) -> Point:
    found, ratio = point.typical, point.ratio
    what = f"{found.rate:,.0f}/s, {ratio.median:.2f} of the base" if ratio else found.problems[0]
    console.print(f"{point.axis} {point.at}: {what}")
    return point
