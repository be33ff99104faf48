"""Replays of dead letters that meet each other, a crash, or a worker that is quicker than the mark."""

import asyncio
import signal
import sys

from support.broker import client
from support.events import logged
from support.ledger import Ledger
from support.letters import broker, letters, replay, undeployed
from support.locks import holding
from support.tables import count, rows
from support.waiting import until
from support.workers import drain, environment, running_worker

from worker.broker import sender, topology
from worker.dead_letters import replay as replaying

QUEUE = topology.queue_name("execution-log")


async def made_letters(settings, ledger: Ledger, number: int) -> list:
    """So many letters of good messages, which must end replayed."""
    events = [logged() for _ in range(number)]
    async with undeployed(settings, "execution-log"), client(settings.broker) as agent:
        await agent.publish(*events)
        await drain(settings)
    for event in events:
        ledger.expect_letter(event.to_json(), "unroutable").resolution = "replayed"
    ledger.published += events
    return events


async def test_replays_at_once_under_two_workers_store_each_letter_once(settings):
    """Three replays of forty letters while two workers store them: the tables hold each once, each letter is resolved."""
    ledger = Ledger()
    await made_letters(settings, ledger, 40)
    small = settings.model_copy(update={"batch_messages": 5})
    async with running_worker(small), running_worker(small):
        done = await asyncio.gather(*(replay(settings) for _ in range(3)))
    await drain(settings)
    assert all(one.resolution == "replayed" for one in await letters(settings))
    published = sum(len(one.published) for one in done)
    [marked] = await rows(settings.database, "SELECT sum(replays)::int AS n FROM dead_letters")
    assert marked["n"] == published >= 40
    await ledger.balance(settings.database)


async def test_a_replay_that_is_killed_before_its_mark_is_harmless(settings):
    """kill -9 of the command between the broker's confirm and the mark: replayed again, and stored once."""
    ledger = Ledger()
    await made_letters(settings, ledger, 20)
    async with holding(settings.database, "SELECT 1 FROM dead_letters FOR UPDATE"):
        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "worker", "dead-letters", "replay"),
            env=environment(settings),
        )

        async def published() -> bool:
            async with broker(settings) as connection:
                return await topology.message_count(connection, QUEUE) == 20

        await until(published, seconds=60)
        command.send_signal(signal.SIGKILL)
        await command.wait()
    assert {one.replays for one in await letters(settings)} == {0}
    assert len((await replay(settings)).published) == 20
    async with client(settings.broker) as agent:
        await drain(settings)
        said = await agent.confirmed(40)
    assert {outcome: len(items) for outcome, items in said.items()} == {
        "persisted": 20,
        "duplicate": 20,
    }
    await ledger.balance(settings.database)


async def test_letters_that_are_stored_before_they_are_marked_end_resolved(settings, monkeypatch):
    """The worker is quicker than the mark: it resolves them, and the mark opens none again."""
    ledger = Ledger()
    await made_letters(settings, ledger, 20)
    mark = replaying.mark

    async def late(*arguments: object) -> None:
        async def all_resolved() -> bool:
            return all(one.resolution for one in await letters(settings))

        await until(all_resolved)
        await mark(*arguments)

    monkeypatch.setattr(replaying, "mark", late)
    async with running_worker(settings):
        await replay(settings)
    assert {one.replays for one in await letters(settings)} == {1}
    await ledger.balance(settings.database)


async def test_a_replay_that_a_full_queue_refuses_is_named_and_its_letter_stays_open(
    settings, monkeypatch
):
    """A nack is no success: nothing is marked, and the letter can be replayed once there is room."""
    monkeypatch.setattr(sender, "_MOST_REFUSALS", 2)  # half a minute otherwise
    ledger = Ledger()
    await made_letters(settings, ledger, 3)
    policy = {"max-length": 1, "overflow": "reject-publish"}
    async with client(settings.broker) as agent:
        other = await agent.channel.declare_queue(
            exclusive=True, arguments={f"x-{name}": value for name, value in policy.items()}
        )
        async with undeployed(settings, "execution-log"):
            await other.bind(topology.MESSAGES, "execution.#")
            done = await replay(settings)
            await other.unbind(topology.MESSAGES, "execution.#")
        assert len(done.published) == 1
        assert len(done.failures) == 2
        assert all("refuses" in why for why in done.failures.values())
        assert sorted(one.replays for one in await letters(settings)) == [0, 0, 1]
        await replay(settings)
        await drain(settings)
    assert await count(settings.database, "execution_logs") == 3
    await ledger.balance(settings.database)
