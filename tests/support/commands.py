"""Running commands of the command line: in this process where only the answer counts, else as a process of its own."""

import asyncio
import contextlib
import io
import json
import logging
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import structlog

from worker.cli import main


@dataclass
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def command(*arguments: str, **environment: str) -> Done:
    """Run a command in this process; the environment holds no other setting of the worker than those given."""
    own = {name: value for name, value in os.environ.items() if not _is_setting(name)}
    out, err = io.StringIO(), io.StringIO()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        with (
            mock.patch.dict(os.environ, {**own, **environment}, clear=True),
            mock.patch.object(sys, "argv", ["worker", *arguments]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = _exit_code()
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
    return Done(code, out.getvalue(), err.getvalue())


def _exit_code() -> int:
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def _is_setting(name: str) -> bool:
    if name == "WORKER_ALLOW_UNSAFE_DATABASE":  # the tests' own server is (conftest)
        return False
    return name in ("DATABASE_URL", "AMQP_URL") or name.startswith("WORKER_")


@dataclass
class Command:
    """A command as a process of its own; what it says is read as it comes."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)
    _said: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self._said:
                self.lines.append(line.decode().rstrip())
                self._said.notify_all()
        async with self._said:
            self._said.notify_all()

    async def said(self, pattern: str, times: int = 1) -> list[str]:
        """What a pattern's group (or the pattern) caught, once it was said this often on standard error."""
        async with asyncio.timeout(60), self._said:
            await self._said.wait_for(lambda: len(self._found(pattern)) >= times or self._silent())
        found = self._found(pattern)
        assert len(found) >= times, f"{pattern!r} not in:\n{self.err}"
        return found

    def _found(self, pattern: str) -> list[str]:
        return re.findall(pattern, self.err)

    def _silent(self) -> bool:
        assert self.process.stderr is not None
        return self.process.stderr.at_eof()

    @property
    def err(self) -> str:
        return "\n".join(self.lines)

    async def silence(self) -> None:
        """Wait until its standard error is closed: it and all processes that it started have ended."""
        async with asyncio.timeout(60), self._said:
            await self._said.wait_for(self._silent)

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        async with asyncio.timeout(60):
            return await self.process.wait()


@asynccontextmanager
async def running_command(*arguments: str, **environment: str) -> AsyncIterator[Command]:
    """A command as a process; killed at the end of the block if it still runs."""
    own = {name: value for name, value in os.environ.items() if not _is_setting(name)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "worker"),
        *arguments,
        env={**own, **environment},
        stderr=asyncio.subprocess.PIPE,
    )
    running = Command(process)
    reading = asyncio.create_task(running.read())
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        reading.cancel()
