"""The one exception of the sandbox, and how its text is made.

Owns the form of a failure: one sentence of what happened, the end of the log where there is
one, and what to do about it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TAIL_LINES = 15
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class SandboxError(RuntimeError):
    """A service of the sandbox could not be had, started, stopped or used."""


def log_tail(what: str, log: Path, advice: str) -> str:
    """Return what happened, the last lines of a log, and what to do."""
    try:
        lines = COLOURS.sub("", log.read_text(errors="replace")).splitlines()[-TAIL_LINES:]
    except OSError:
        lines = []
    tail = [f"    {line}" for line in lines] or ["    (nothing was logged)"]
    return "\n".join([what, f"The end of {log}:", *tail, advice])
