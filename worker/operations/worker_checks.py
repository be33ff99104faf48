"""The doctor's look at a worker on this machine, over its own /readyz and /metrics."""

import asyncio
import json
import re

from worker.operations.findings import Finding, mend, note, ok
from worker.settings import Settings

_SECONDS = 5.0
_PAUSED = re.compile(r'^worker_paused\{family="([^"]+)"\} 1(?:\.0)?$', re.MULTILINE)


async def examine(settings: Settings) -> list[Finding]:
    """Whether a worker answers, is ready, and has paused a family."""
    host, port = settings.http_host, settings.http_port
    if not port:
        return []
    host = "127.0.0.1" if host in ("0.0.0.0", "") else host  # noqa: S104 (where it listens, not where we do)
    try:
        ready = await _get(host, port, "/readyz")
        metrics = await _get(host, port, "/metrics")
    except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
        return [note("worker", f"no worker answers on {host}:{port}, so pauses cannot be seen")]
    return [judge_ready(ready), *judge_pause(metrics)]


def judge_ready(body: str) -> Finding:
    """Whether the worker is at work."""
    try:
        answer = json.loads(body)
        wrong = [text for text in answer["checks"].values() if text != "ok"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return note("worker", "something else than a worker answers on this worker's HTTP port",
            "Let WORKER_HTTP_PORT name the worker's own port.")  # fmt: skip
    if wrong:
        return mend("worker", f"the worker on this machine is not ready: {'; '.join(wrong)}",
            "Mend what stands above; the worker goes on by itself.")  # fmt: skip
    return ok("worker", "the worker on this machine is ready")


def judge_pause(metrics: str) -> list[Finding]:
    """Whether families are paused because most of their messages are refused."""
    paused = _PAUSED.findall(metrics)
    if not paused:
        return []
    return [
        mend(
            "pause",
            f"paused because most messages are refused, from several sources: {', '.join(paused)}",
            "Look at 'worker dead-letters list' for what is refused and why; the family tries again by itself.",
        )
    ]


async def _get(host: str, port: int, path: str) -> str:
    """The body of an answer."""
    async with asyncio.timeout(_SECONDS):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            answer = await reader.read()
        finally:
            writer.close()
    _, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        raise ValueError("not an answer over HTTP")
    return body.decode()
