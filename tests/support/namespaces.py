"""A network of its own for a worker process, from which packets can be made to vanish without a word.

Nothing ends a connection then: no reset, no refusal, only silence, as behind a firewall or a pulled cable. It is a
network namespace of Linux, joined to ours by a pair of virtual interfaces; what vanishes are the packets to the worker,
by a route into a black hole. It needs root and the program `ip`.
"""

import asyncio
import os
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network with one way to us."""

    name: str
    ours: str
    """Our address, as the worker sees it."""
    theirs: str

    @property
    def enter(self) -> tuple[str, ...]:
        """What a command is to be put behind, to run in it."""
        return ("ip", "netns", "exec", self.name)

    async def vanish(self) -> None:
        """From now on nothing that is sent to the worker arrives."""
        await _ip("route", "add", "blackhole", f"{self.theirs}/32")

    async def reappear(self) -> None:
        """The way is open again."""
        await _ip("route", "del", "blackhole", f"{self.theirs}/32")


def missing_means() -> str | None:
    """Why there can be no such network here; None where it can."""
    if os.geteuid() != 0:
        return "a network namespace needs root"
    if shutil.which("ip") is None:
        return "a network namespace needs the program ip (package iproute2)"
    return None


@asynccontextmanager
async def namespace() -> AsyncIterator[Namespace]:
    """A new one, gone at the end of the block with whatever still runs in it cut off."""
    third, fourth = random.randrange(256), 4 * random.randrange(64)
    name = f"worker-{os.getpid()}-{third}"
    near, far = f"wn{third}x{fourth}", f"wf{third}x{fourth}"
    made = Namespace(name, f"10.213.{third}.{fourth + 1}", f"10.213.{third}.{fourth + 2}")
    await _ip("netns", "add", name)
    try:
        await _ip("link", "add", near, "type", "veth", "peer", "name", far)
        await _ip("link", "set", far, "netns", name)
        await _ip("address", "add", f"{made.ours}/30", "dev", near)
        await _ip("link", "set", near, "up")
        await _ip("-n", name, "address", "add", f"{made.theirs}/30", "dev", far)
        await _ip("-n", name, "link", "set", far, "up")
        await _ip("-n", name, "link", "set", "lo", "up")
        yield made
    finally:
        for rest in (
            ("netns", "del", name),
            ("link", "del", near),
            ("route", "del", "blackhole", f"{made.theirs}/32"),
        ):
            with suppress(RuntimeError):  # gone already, as a rule
                await _ip(*rest)


async def _ip(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec("ip", *arguments, stderr=asyncio.subprocess.PIPE)
    _, error = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {error.decode().strip()}")
