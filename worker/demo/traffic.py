"""Who publishes in the demonstration: simulated agents, or agents that replay recorded runs, and a careless one."""

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from contracts.client import Publisher
from contracts.envelope import Event
from contracts.identifiers import uuid7
from worker.broker.connection import BrokerConnection
from worker.demo import mistakes
from worker.demo.agents import Agent, out_of_order, training_job
from worker.demo.ledger import Ledger

_TASKS_AT_ONCE = 40
_RECORDED_AT_ONCE = 250
_EVERY = 12  # one in so many messages is published a second time
_MISTAKEN = 3  # bad messages of each kind


@dataclass(frozen=True)
class Amount:
    """How much is published, by how many agents: for some seconds, or these events where there are any."""

    agents: int
    seconds: float
    events: Sequence[Event] = ()
    seed: int = 1

    def __str__(self) -> str:
        who = f"{self.agents} agents publish" if self.agents > 1 else "1 agent publishes"
        if self.events:
            return f"{who} {len(self.events):,} events of recorded runs"
        return f"{who} for {self.seconds:g} seconds"


class Traffic:
    """All publishing of one demonstration."""

    def __init__(self, amount: Amount, amqp_url: str, ledger: Ledger) -> None:
        self._amount = amount
        self._url = amqp_url
        self._ledger = ledger
        self._begin = time.monotonic()
        self._over = False

    @property
    def progress(self) -> float:
        """How far it has come, from 0 to 1."""
        if self._over:
            return 1
        if self._amount.events:
            return self._ledger.answered / len(self._amount.events)
        return (time.monotonic() - self._begin) / self._amount.seconds

    async def flow(self, connection: BrokerConnection) -> None:
        """Publish everything, and wait until it is answered."""
        self._begin = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            careless = tasks.create_task(self._make_mistakes(connection))
            await self._agents_work()
            self._over = True
            await careless

    async def _agents_work(self) -> None:
        job = uuid7()
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._amount.agents):
                work: Coroutine[Any, Any, None] = (
                    self._replay(number) if self._amount.events else self._simulate(number, job)
                )
                tasks.create_task(work)

    async def _simulate(self, number: int, job: Any) -> None:
        """One simulated agent at work until the time is over."""
        async with self._publisher(f"/agents/simulated-{number + 1}") as publisher:
            agent = Agent(number, publisher, job, self._amount.seed + number)
            told = training_job(publisher, job) if number == 0 else []
            again: list[Event] = []
            for turn in itertools.count(self._amount.seed):
                told += [event for _ in range(_TASKS_AT_ONCE) for event in agent.work()]
                await self._ledger.publish_all(publisher, out_of_order(told + again, turn))
                told, again = [], told[::_EVERY]
                if self.progress >= 1:
                    break
            await self._ledger.publish_all(publisher, again)

    async def _replay(self, number: int) -> None:
        """One agent that publishes its share of the recorded events."""
        shuffled = out_of_order(self._amount.events, self._amount.seed)
        share = shuffled[number :: self._amount.agents]
        async with self._publisher(f"/agents/replay-{number + 1}") as publisher:
            again: list[Event] = []
            for first in range(0, len(share), _RECORDED_AT_ONCE):
                told = share[first : first + _RECORDED_AT_ONCE]
                await self._ledger.publish_all(publisher, told + again)
                again = told[::_EVERY]
            await self._ledger.publish_all(publisher, again)

    def _publisher(self, source: str) -> Publisher:
        return Publisher(self._url, source=source, batch=True, close_timeout=1)

    async def _make_mistakes(self, connection: BrokerConnection) -> None:
        """Publish bad messages, once there is something stored that they can contradict."""
        await until(lambda: self._over or len(self._ledger.logs) >= _MISTAKEN)
        bad = list(mistakes.mistakes(self._ledger.logs[:_MISTAKEN]))
        await mistakes.publish(connection, bad)
        self._ledger.note(bad)


async def until(condition: Callable[[], bool], *, seconds: float = float("inf")) -> bool:
    """Look at some counters again and again; whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True
