"""What the doctor says: a level, what was found, and what to do about it in one sentence."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; the worker does its work."""
    MEND = "mend"
    """Something must be mended: the worker cannot work, or does not keep what it promises."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    check: str
    what: str
    remedy: str | None = None


def ok(check: str, what: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, check, what)


def note(check: str, what: str, remedy: str | None = None) -> Finding:
    """Worth knowing."""
    return Finding(Level.NOTE, check, what, remedy)


def mend(check: str, what: str, remedy: str) -> Finding:
    """Must be mended."""
    return Finding(Level.MEND, check, what, remedy)
