"""Ways to be connected and still do nothing, each of which the worker notices."""

import asyncio

import pytest
from support.broker import client, new_topology
from support.events import logged
from support.tables import count
from support.workers import running_worker

from worker.broker import budget


async def test_a_queue_that_is_deleted_and_made_anew_is_consumed_again(settings):
    """The broker cancels the consumer; the worker attaches again, and readiness says so in between."""
    async with running_worker(settings) as worker:
        await new_topology(settings.broker)
        await worker.attached()
        async with client(settings.broker) as agent:
            await agent.publish(logged())
            assert len((await agent.confirmed(1))["persisted"]) == 1


async def test_an_alarm_that_blocks_publishing_does_not_block_draining(settings, rabbitmq):
    """Under a memory alarm messages are still stored; their confirmations follow when it is over."""
    async with client(settings.broker) as agent:
        await agent.publish(*(logged() for _ in range(200)))
        await asyncio.to_thread(rabbitmq.control, "set_vm_memory_high_watermark", "0.0000001")
        try:
            async with running_worker(settings):
                async with asyncio.timeout(30):
                    while await count(settings.database, "execution_logs") < 200:
                        pass
                await asyncio.to_thread(rabbitmq.control, "set_vm_memory_high_watermark", "0.4")
                assert len((await agent.confirmed(200))["persisted"]) == 200
        finally:
            await asyncio.to_thread(rabbitmq.control, "set_vm_memory_high_watermark", "0.4")


async def test_bodies_past_the_budget_are_put_back_and_all_land(settings, monkeypatch):
    """Sixty bodies of 400 kB with a budget of 2 MiB: what is held stays within it, and nothing is lost."""
    held = []
    fits = budget.ByteBudget.fits

    def watch(budget, size: int) -> bool:
        held.append(budget.held)
        return fits(budget, size)

    monkeypatch.setattr(budget.ByteBudget, "fits", watch)
    small = settings.model_copy(update={"memory_budget": 2 * 1024 * 1024})
    async with client(settings.broker) as agent:
        await agent.publish(*(logged(output_full="x" * 400_000) for _ in range(60)))
        async with running_worker(small):
            assert len((await agent.confirmed(60))["persisted"]) == 60
    assert max(held) <= 2 * 1024 * 1024
    assert await count(settings.database, "execution_logs") == 60


async def test_a_body_larger_than_the_whole_budget_still_moves(settings):
    """One message can always be handled, however small the budget is."""
    small = settings.model_copy(update={"memory_budget": 1024})
    async with client(settings.broker) as agent:
        await agent.publish(logged(output_full="x" * 300_000), logged(output_full="y" * 300_000))
        async with running_worker(small):
            assert len((await agent.confirmed(2))["persisted"]) == 2


@pytest.mark.parametrize("kind", ["database", "broker"])
async def test_connections_that_are_cut_are_made_anew(kind, settings, rabbitmq):
    """pg_terminate_backend and close_all_connections while messages flow: all are stored, none is a dead letter."""
    from support.tables import rows

    async with running_worker(settings) as worker:
        for _ in range(3):
            async with client(settings.broker) as agent:
                await agent.publish(*(logged() for _ in range(50)))
                if kind == "database":
                    await rows(
                        settings.database,
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
                    )
            if kind == "broker":
                await asyncio.to_thread(rabbitmq.control, "close_all_connections", "test")
        async with asyncio.timeout(30):
            while await count(settings.database, "execution_logs") < 150:
                pass
        await worker.attached()
    assert await count(settings.database, "dead_letters") == 0
