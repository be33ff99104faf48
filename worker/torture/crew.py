"""The workers of a torture run: places that always hold a worker, whatever becomes of the one before.

Promises that a worker which ends without having been made to is noticed, with its last words, and replaced.
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from worker.demo.processes import WorkerProcess, start_worker
from worker.errors import Unavailable
from worker.torture.proxy import Proxy

_READY_TRIES = 3
_STARTS = 5
_ORDERLY_SECONDS = 60
_DRAIN_SECONDS = 600
_CRASH_SECONDS = 30


class Place:
    """One worker at a time, with a network of its own. `busy` is held by whoever does something to it."""

    def __init__(
        self,
        name: str,
        environment: Mapping[str, str],
        folder: Path,
        charge: Callable[[str, str], None],
    ) -> None:
        self.name = name
        self.busy = asyncio.Lock()
        self.broker: Proxy | None = None
        self.database: Proxy | None = None
        self.environment = dict(environment)
        self.starts = 0
        self.largest_bytes = 0
        self._folder = folder
        self._charge = charge
        self._worker: WorkerProcess | None = None
        self._watch: asyncio.Task[None] | None = None
        self._may_end = False

    @property
    def worker(self) -> WorkerProcess:
        """The present one."""
        assert self._worker is not None  # noqa: S101 (there is one once it was started)
        return self._worker

    @property
    def state(self) -> str:
        """What a person wants to know of it."""
        return self._worker.state if self._worker is not None else "starting"

    async def start(self, crash_point: str = "") -> None:
        """Start a worker and wait until it is attached, or has reached its crash point.

        Raises Unavailable where workers end again and again before they are.
        """
        for _ in range(_STARTS):
            self.starts += 1
            self._may_end = bool(crash_point)
            environment = {**self.environment, "WORKER_CRASH_POINT": crash_point}
            self._worker = await start_worker(self.name, environment, self._folder)
            if await self._attached(self._worker):
                if not crash_point:
                    self._watch = asyncio.create_task(self._watch_over(self._worker))
                return
            code, words = self._worker.code, self._worker.last_words()
            if crash_point and code == -signal.SIGKILL:
                return
            self._charge("crashed", f"{self.name} ended with {code} while it started: {words}")
        raise Unavailable(f"{self.name} ended {_STARTS} times while it started: {words}")

    async def _attached(self, worker: WorkerProcess) -> bool:
        """Wait until it is; False where it ends before."""
        for _ in range(_READY_TRIES):
            try:
                await worker.ready()
            except Unavailable:
                if worker.code is not None:
                    return False
            else:
                return True
        self._charge("stuck", f"{self.name} is not attached to its queues after minutes")
        return True

    async def kill(self) -> None:
        """End it as a power cut would."""
        self._measure()
        self._unwatch()
        self._charge_if_ended()
        self.worker.kill()
        self._may_end = True
        await self.worker.ended()

    async def crash(self, crash_point: str) -> None:
        """Start one that kills itself where it is told to; one that never comes by there is killed."""
        await self.start(crash_point)
        try:
            async with asyncio.timeout(_CRASH_SECONDS):
                code = await self.worker.ended()
        except TimeoutError:
            await self.kill()
            return
        if code != -signal.SIGKILL:
            words = self.worker.last_words()
            self._charge("crashed", f"{self.name} ended with {code} before {crash_point}: {words}")

    async def replace(self) -> None:
        """Start another one, if this one is no more."""
        if self.worker.code is not None:
            await self.start()

    async def terminate(self) -> None:
        """End it in an orderly way; it must, and with 0."""
        self._measure()
        self._unwatch()
        self._charge_if_ended()
        self._may_end = True
        self.worker.signal(signal.SIGTERM)
        self.worker.state = "stopped"
        try:
            async with asyncio.timeout(_ORDERLY_SECONDS):
                code = await self.worker.ended()
        except TimeoutError:
            self._charge("stuck", f"{self.name} did not end {_ORDERLY_SECONDS} s after SIGTERM")
            await self.kill()
            return
        if code:
            words = self.worker.last_words()
            self._charge("crashed", f"{self.name} ended with {code} after SIGTERM: {words}")

    async def drain(self) -> None:
        """Let a worker work until the queues and the outbox are empty; it must end, and with 0."""
        self._worker = await start_worker(self.name, self.environment, self._folder, "--drain")
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                code = await self._worker.ended()
        except TimeoutError:
            self._charge("stuck", f"worker run --drain did not end within {_DRAIN_SECONDS} s")
            await self.kill()
            return
        if code:
            words = self._worker.last_words()
            self._charge("crashed", f"worker run --drain ended with {code}: {words}")

    async def close(self) -> None:
        """Nothing of it is left."""
        self._unwatch()
        if self._worker is not None and self._worker.code is None:
            self._worker.kill()
            await self._worker.ended()

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    async def _watch_over(self, worker: WorkerProcess) -> None:
        """Charge a worker that ends by itself, and start the next."""
        await worker.ended()
        self._charge_if_ended()
        async with self.busy:
            await self.replace()

    def _charge_if_ended(self) -> None:
        """Charge the present one, once, if it has ended and nobody made it."""
        code = self.worker.code
        if code is not None and not self._may_end:
            self._may_end = True
            words = self.worker.last_words()
            self._charge("crashed", f"{self.name} ended with {code} unasked: {words}")

    def _measure(self) -> None:
        """The most memory that it ever had, where the system tells."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            status = Path(f"/proc/{self.worker.pid}/status").read_text()
            peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
            self.largest_bytes = max(self.largest_bytes, int(peak.split()[1]) * 1024)
