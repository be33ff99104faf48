"""UUID version 7 (RFC 9562, section 5.7): keys that sort by the time they were made.

Promises keys that do not collide between processes and never go back in time within one.
"""

import os
import threading
import time
from hashlib import blake2b
from uuid import UUID

_lock = threading.Lock()
_last = 0


def uuid7(unix_ms: int | None = None) -> UUID:
    """A new UUIDv7: 48 bits of Unix milliseconds, 74 random bits.

    Without `unix_ms` it is the present time, and each call in a process gives a larger key than the last:
    12 bits behind the milliseconds hold the fraction of the millisecond (RFC 9562, section 6.2, method 3).
    """
    global _last  # noqa: PLW0603 (the clock that must not go back is one for the process)
    random = int.from_bytes(os.urandom(8))
    if unix_ms is not None:
        return _assemble(unix_ms, int.from_bytes(os.urandom(2)) & 0xFFF, random)
    nanoseconds = time.time_ns()
    tick = (nanoseconds // 1_000_000 << 12) | (nanoseconds % 1_000_000 << 12) // 1_000_000
    with _lock:
        tick = _last = max(tick, _last + 1)
    return _assemble(tick >> 12, tick & 0xFFF, random)


def _assemble(milliseconds: int, fraction: int, random: int) -> UUID:
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | fraction << 64
    return UUID(int=value | 0b10 << 62 | random & 0x3FFF_FFFF_FFFF_FFFF)


def derived_uuid(parent: UUID, *parts: object) -> UUID:
    """A key that follows from another one and some parts: the same for every call, next to its parent in time order.

    A UUIDv7 with the parent's first 48 bits whose random bits are a digest of the parent and the parts.
    """
    text = "/".join(map(str, (parent, *parts)))
    bits = int.from_bytes(blake2b(text.encode(), digest_size=10).digest())
    return _assemble(parent.int >> 80, bits >> 64 & 0xFFF, bits)


def uuid7_time_ms(key: UUID) -> int:
    """The Unix milliseconds inside a UUIDv7."""
    return key.int >> 80
