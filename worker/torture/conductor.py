"""Makes faults while messages flow: on each worker and each service one after the other, and counts them."""

import asyncio
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass

import asyncpg

from worker.torture.crew import Place
from worker.torture.faults import Fault, Strike, draw
from worker.torture.stage import Stage

_MISSED = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
_REMEMBERED = 2_000


@dataclass
class Struck:
    """A fault that was made: seconds after the beginning, and for how long, mending included."""

    fault: str
    victim: str
    at: float
    lasted: float | None = None

    def __str__(self) -> str:
        return self.fault if self.victim in self.fault else f"{self.fault} ({self.victim})"


class Conductor:
    """Makes these faults, one every so many seconds all in all. The seed decides what is done to each victim in which order."""

    def __init__(self, stage: Stage, faults: Collection[Fault], seed: int, every: float) -> None:
        self._stage = stage
        self._faults = faults
        self._seed = seed
        self._every = every
        self.faults: Counter[str] = Counter()
        self.history: deque[Struck] = deque(maxlen=_REMEMBERED)
        self._begin = 0.0

    @property
    def under_way(self) -> list[str]:
        """Faults that are not mended yet."""
        return [str(struck) for struck in self.history if struck.lasted is None]

    async def run(self, seconds: float) -> None:
        """Make faults for so many seconds; returns when each is mended. Raises what no fault should bring about."""
        self._begin = asyncio.get_running_loop().time()
        ends = self._begin + seconds
        places = self._stage.places
        async with asyncio.TaskGroup() as victims:
            for service in ("broker", "database"):
                chosen = [fault for fault in self._faults if fault.target == service]
                if chosen:
                    every = self._every / self._share(chosen)
                    victims.create_task(self._torment(service, places[0], chosen, every, ends))
            chosen = [fault for fault in self._faults if fault.on_worker]
            for place in places if chosen else ():
                every = self._every / self._share(chosen) * len(places)
                victims.create_task(self._torment(place.name, place, chosen, every, ends))
            await asyncio.sleep(seconds)

    def _share(self, faults: Collection[Fault]) -> float:
        """How many of all faults these are to be."""
        return sum(fault.weight for fault in faults) / sum(fault.weight for fault in self._faults)

    async def _torment(
        self, victim: str, place: Place, faults: Collection[Fault], every: float, ends: float
    ) -> None:
        """One victim's faults, one after the other."""
        loop = asyncio.get_running_loop()
        for strike in draw(f"{self._seed} {victim}", faults, every):
            await asyncio.sleep(min(strike.pause, max(ends - loop.time(), 0)))
            if loop.time() >= ends:
                return
            async with place.busy if strike.fault.on_worker else asyncio.Lock():
                await self._strike(strike, victim, place)

    async def _strike(self, strike: Strike, victim: str, place: Place) -> None:
        name = strike.fault.name
        self.faults[name] += 1
        loop = asyncio.get_running_loop()
        struck = Struck(name, victim, round(loop.time() - self._begin, 2))
        self.history.append(struck)
        try:
            await strike.fault.strike(self._stage, place, strike)
        except _MISSED:  # the database was away when something was to be done in it
            self.faults[name] -= 1
        finally:
            struck.lasted = round(loop.time() - self._begin - struck.at, 2)
