"""/livez, /readyz and /metrics over HTTP.

Live: the process answers. Ready: attached to every queue it should consume, the database answers, and it is at or past
the migrations that this code needs; /readyz says which of these is not so.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from worker import telemetry
from worker.errors import Misconfigured

Check = Callable[[], Awaitable[str | None]]
"""What is not ready, in a sentence; None where all is well."""


def application(checks: dict[str, Check]) -> Starlette:
    """The routes; `checks` are asked anew each time /readyz is."""

    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(_: Request) -> Response:
        async with asyncio.timeout(10):
            answers = await asyncio.gather(*(check() for check in checks.values()))
        parts = {name: answer or "ok" for name, answer in zip(checks, answers, strict=True)}
        ready = not any(answers)
        body = {"status": "ready" if ready else "not ready", "checks": parts}
        return JSONResponse(body, status_code=200 if ready else 503)

    async def metrics(_: Request) -> Response:
        return Response(telemetry.exposition(), media_type=telemetry.CONTENT_TYPE)

    routes = [Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]
    return Starlette(routes=routes)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the worker has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """The bound socket of the server. Raises Misconfigured where the port cannot be had."""
    try:
        return socket.create_server((host, port), reuse_port=False)
    except OSError as error:
        raise Misconfigured(
            f"cannot listen on {host}:{port} for health and metrics ({error.strerror}); "
            "set WORKER_HTTP_PORT to a free port, or to 0 for none"
        ) from error


async def serve(checks: dict[str, Check], listener: socket.socket) -> None:
    """Serve until cancelled."""
    config = uvicorn.Config(application(checks), log_config=None, access_log=False, lifespan="off")
    server = _Server(config)
    try:
        await server.serve(sockets=[listener])
    finally:
        listener.close()
