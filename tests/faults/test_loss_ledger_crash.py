"""kill -9 around the commit: the loss ledger has what the tables have, once."""

import asyncio
import signal

import pytest
from support.broker import client
from support.commands import command
from support.events import created, logged
from support.ledger import Ledger
from support.tables import rows
from support.workers import drain, worker_process

from contracts.identifiers import uuid7


@pytest.mark.parametrize("point", ["before_commit", "after_commit", "before_acknowledge"])
async def test_a_killed_worker_leaves_an_exact_ledger(point, settings, tmp_path):
    """Nothing is missing, nothing doubled, and what was stored is stored once: by the tables and by the ledger."""
    ledger = Ledger()
    epochs = [uuid7() for _ in range(3)]
    events = [
        (created() if at % 2 else logged()).model_copy(
            update={"sequence": str(at), "epoch": epoch, "source": f"/agents/{number}"}
        )
        for at in range(1, 61)
        for number, epoch in enumerate(epochs)
    ]
    async with client(settings.broker) as agent:
        async with worker_process(settings, WORKER_CRASH_POINT=point) as doomed:
            await ledger.publish(agent, events)
            assert await doomed.ended() == -signal.SIGKILL
        quick = settings.model_copy(update={"outbox_sweep_after": 0.5})
        await drain(quick)
        await ledger.hear(agent)
    await ledger.balance(settings.database)
    found = await rows(
        settings.database,
        "SELECT epoch, range_agg(persisted)::text AS persisted, sum(n)::int AS n FROM loss_ledger, "
        "LATERAL (SELECT sum(upper(r) - lower(r)) AS n FROM unnest(persisted) AS r) AS counted GROUP BY epoch",
    )
    assert {row["epoch"]: (row["persisted"], row["n"]) for row in found} == dict.fromkeys(
        epochs, ("{[1,61)}", 60)
    )
    told = tmp_path / "published.jsonl"
    told.write_text(
        "".join(
            f'{{"source": "/agents/{number}", "epoch": "{epoch}", "sequence": 60}}\n'
            for number, epoch in enumerate(epochs)
        )
    )
    places = {"DATABASE_URL": settings.database, "AMQP_URL": settings.broker}
    done = await asyncio.to_thread(command, "reconcile", "--published", str(told), **places)
    assert done.code == 0, done.out
