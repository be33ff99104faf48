"""Points at which a test can kill the worker as `kill -9` would; inert until one is armed.

They stand between the steps whose order keeps messages safe (design page TORTURE, item 16).
"""

import os
import signal
from typing import Literal, get_args

CrashPoint = Literal[
    "after_decode",
    "before_commit",
    "after_commit",
    "before_acknowledge",
    "before_publish",
    "after_publish",
    "none",
]
_armed: CrashPoint = "none"


def arm(point: str) -> None:
    """Make the next passing of this point the process's last act. Raises ValueError for a point that is not there."""
    global _armed  # noqa: PLW0603 (one process, one armed point)
    for known in get_args(CrashPoint):
        if known == point:
            _armed = known
            return
    raise ValueError(f"{point!r} is not a crash point: {', '.join(get_args(CrashPoint))}")


def reached(point: CrashPoint) -> None:
    """Die here, without a word, if this point is armed."""
    if point == _armed:
        os.kill(os.getpid(), signal.SIGKILL)
