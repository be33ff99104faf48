"""How fast this machine is right now: a fixed piece of work, timed before every run.

Rates are never divided by it: it shows how far the machine drifted between runs that are compared, and which rounds
not to trust.
"""

import time
from hashlib import blake2b

_WORK = bytes(range(256)) * 256


def calibrate(seconds: float = 0.15) -> float:
    """Thousands of pieces of work a second, over about so many seconds."""
    pieces = 0
    value = 0
    started = time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        for number in range(100):
            value = (value * 31 + number) & 0xFFFF_FFFF
        blake2b(_WORK[value & 0xFF :], digest_size=16).digest()
        pieces += 1
    return pieces / passed / 1000
