"""A container engine, for the tests that need one; where none answers they are skipped, in one line a file."""

import asyncio
import os

import pytest

from worker.sandbox.containers import engine_answers

ANSWERS = engine_answers(os.environ.get("PATH", ""), os.environ)
_SKIP = pytest.mark.skip(reason="no container engine answers `docker info`")

# `skip` and not `skipif`, for pytest folds only the former into one line.
needs_engine = [pytest.mark.docker, pytest.mark.slow, *([] if ANSWERS else [_SKIP])]


async def docker(*arguments: str, check: bool = True, **environment: str) -> tuple[int, str]:
    """Run `docker …`; its exit code and all that it printed. A failure is the test's, with what was printed."""
    process = await asyncio.create_subprocess_exec(
        "docker",
        *arguments,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    text = out.decode(errors="replace")
    code = process.returncode or 0
    assert code == 0 or not check, f"docker {' '.join(arguments)} exited {code}:\n{text[-4000:]}"
    return code, text
