"""Makes worker processes that some messages kill, each by a means of its own; it has an effect on PYTHONPATH only.

Python imports a module of this name in every process at its start, so the processes of a supervisor have it too.
"""

import ctypes
import os
import resource
import signal
from pathlib import Path

from worker.decode import Decoder

PHRASE = b"kill the worker by "


def _segmentation_fault() -> None:
    ctypes.string_at(0)


def _out_of_memory() -> None:
    """As in a process whose address space is limited: the next large allocation fails, wherever it is."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used, used))
    hoard = []
    while True:
        hoard.append(bytearray(1024 * 1024))


MEANS = {
    b"exit": lambda: os._exit(70),
    b"SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    b"SIGSEGV": _segmentation_fault,
    b"abort": os.abort,
    b"memory": _out_of_memory,
    # It hangs with everything it holds, until somebody's watchdog ends it.
    b"hang": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}


def _fragile(decode):
    def decode_or_die(self, delivery):
        _, found, rest = delivery.body.partition(PHRASE)
        if found:
            MEANS[rest.partition(b'"')[0]]()
        return decode(self, delivery)

    return decode_or_die


Decoder.decode = _fragile(Decoder.decode)
