"""Growth: rate, cost and memory against backlog, rows, payload and processes (`make bench-growth`).

Every point is measured beside a base in the same minutes, and reported as a ratio to it. Backlogs of a million are made
and checked by count, not by content; payloads above 64 KB have fewer messages, or the broker would need 80 GB.
"""

import json
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import orjson
from rich.console import Console
from rich.table import Table

from benchmarks import document, verify
from benchmarks.contenders import Contender
from benchmarks.contenders.ours import Ours
from benchmarks.events import Event, Maker
from benchmarks.load import Body, Load
from benchmarks.measure import Measurement, measure_in
from benchmarks.services import Services
from contracts.identifiers import uuid7

_BASE = 20_000
_FILL_ROWS = 250_000
_KIB = 1024
_LOOKS = 5
_HEADS = ("axis", "at", "messages", "messages/s", "to base", "CPU s for 10,000", "MiB")


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
class Point:
    """One point of a curve, and the base that was measured just before."""

    axis: str
    at: str
    measurement: Measurement
    base: Measurement

    @property
    def ratio(self) -> float:
        """Its rate over the base's."""
        return self.measurement.rate / self.base.rate


async def main(
    services: Services,
    console: Console,
    folder: Path,
    *,
    most_rows: int = 5_000_000,
    axes: Sequence[str] = (),
    write: bool = False,
) -> int:
    """Measure every curve, or only these axes; print it, write it; 1 where some run was not as it should be."""
    wanted = axes or tuple(_AXES)
    points = [point for axis in wanted async for point in _AXES[axis](services, console, most_rows)]
    table = Table(title="Growth", box=None, pad_edge=False, header_style="bold")
    for name in _HEADS:
        table.add_column(name, justify="left" if name in ("axis", "at") else "right")
    lines = [_row(point) for point in points]
    for row in lines:
        table.add_row(*row)
    console.print(table)
    problems = [text for point in points for text in point.measurement.problems]
    for text in problems:
        console.print(f"[red]No figure:[/] {text}")
    (folder / "growth.json").write_text(json.dumps([_as_json(point) for point in points], indent=1))
    if write:
        document.put("growth", document.table(_HEADS, lines))
    return 1 if problems else 0


def _row(point: Point) -> tuple[str, ...]:
    found = point.measurement
    figures = (f"{found.rate:,.0f}", f"{point.ratio:.2f}x", f"{found.cpu_total:.2f}")
    return (point.axis, point.at, f"{found.messages:,}", *figures, f"{found.memory_mib:.0f}")


def _as_json(point: Point) -> dict[str, object]:
    found = point.measurement
    return {
        "axis": point.axis,
        "at": point.at,
        "messages": found.messages,
        "rate": found.rate,
        "base_rate": point.base.rate,
        "ratio": point.ratio,
        "cpu_per_10k": found.cpu_per_10k,
        "memory_mib": found.memory_mib,
        "bytes_each": found.bytes_each,
        "problems": found.problems,
    }


Points = AsyncIterator[Point]


async def _backlogs(services: Services, console: Console, _most_rows: int) -> Points:
    for backlog in (10_000, 100_000, 1_000_000):
        yield await _fresh(
            services, console, "backlog", f"{backlog:,}", Ours("ours"), _logs(backlog)
        )


async def _payloads(services: Services, console: Console, _most_rows: int) -> Points:
    for size, count in ((1, 10_000), (64, 3_000), (1024, 300), (8000, 40)):
        load = Stream(count, lambda n, size=size: Maker().sized(n, size * _KIB))
        yield await _fresh(services, console, "payload", f"{size:,} KiB", Ours("ours"), load)


async def _processes(services: Services, console: Console, _most_rows: int) -> Points:
    for processes in (1, 2, 4, 8):
        worker = Ours(f"ours-{processes}", processes=processes)
        yield await _fresh(services, console, "processes", str(processes), worker, _logs(2 * _BASE))


async def _rows(services: Services, console: Console, most_rows: int) -> Points:
    """Filling takes minutes and measuring seconds, so each point is the middle one of several."""
    ours = Ours("ours")
    async with services.place() as place:
        for rows in (0, 1_000_000, 5_000_000, 20_000_000):
            if rows > most_rows:
                break
            await _fill(place.database, rows)
            points = []
            for _ in range(_LOOKS):
                base = await _one(services, ours, _logs(_BASE))
                found = await measure_in(services, place, ours, _logs(_BASE), verify.counted)
                points.append(_said(console, Point("rows", f"{rows:,}", found, base)))
            yield sorted(points, key=lambda point: point.ratio)[_LOOKS // 2]


_AXES = {"backlog": _backlogs, "payload": _payloads, "processes": _processes, "rows": _rows}
AXES = tuple(_AXES)


def _logs(count: int) -> Stream:
    return Stream(count, lambda n: Maker().logs(n))


async def _fresh(
    services: Services, console: Console, axis: str, at: str, contender: Contender, load: Stream
) -> Point:
    base = await _one(services, Ours("ours"), _logs(_BASE))
    return _said(console, Point(axis, at, await _one(services, contender, load), base))


async def _one(services: Services, contender: Contender, load: Stream) -> Measurement:
    async with services.place() as place:
        return await measure_in(services, place, contender, load, verify.counted)


def _said(console: Console, point: Point) -> Point:
    what = "; ".join(point.measurement.problems) or f"{point.measurement.rate:,.0f}/s"
    console.print(f"{point.axis} {point.at}: {what}, {point.ratio:.2f} of the base")
    return point


async def _fill(connection: asyncpg.Connection, rows: int) -> None:
    """Fill the log table up to so many rows of the past month, keys in the order of their time."""
    await connection.execute("SET session_replication_role = replica")  # parents are not the point
    present = await connection.fetchval("SELECT count(*) FROM execution_logs")
    while present < rows:
        count = min(_FILL_ROWS, rows - present)
        await connection.execute(_FILL, present, count)
        present += count
    await connection.execute("SET session_replication_role = DEFAULT")
    await connection.execute("ANALYZE execution_logs")
    await connection.execute("CHECKPOINT")


_FILL = """
INSERT INTO execution_logs (log_id, task_id, step_number, agent_type, action, status, output_summary, output_full,
    timestamp, duration_ms, event_id, source, content_digest, created_at)
SELECT key, gen_random_uuid(), n % 20, 'infra', 'plan apply refresh state', 'completed', 'module resource subnet',
    '{"lines": ["gateway cluster node pool"], "exit_code": 0}'::jsonb, moment, n % 30000, key, '/agents/bench-1',
    decode(md5(n::text), 'hex'), moment
FROM (
    SELECT n, moment, (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '7'
        || substr(md5(n::text), 1, 3) || 'a' || substr(md5(n::text), 4, 15))::uuid AS key
    FROM (
        SELECT n, date_trunc('month', now()) + n * (now() - date_trunc('month', now())) * 0.9 / 20000000 AS moment
        FROM generate_series($1::bigint, $1::bigint + $2::bigint - 1) AS n
    ) AS moments
) AS keys
"""
