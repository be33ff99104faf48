"""A service that goes away while a worker starts: the worker waits for it, as for one that is not there yet."""

from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr
from support.broker import client
from support.events import logged
from support.ledger import Ledger
from support.workers import running_worker

from worker import app
from worker.torture.proxy import Proxy


@pytest.mark.parametrize("service", ["database", "broker"])
async def test_a_worker_waits_for_a_service_that_goes_away_while_it_starts(
    service, settings, monkeypatch
):
    """Between the first answer and the last check the connection is cut; it starts all the same, and works."""
    name = f"{service}_url" if service == "database" else "amqp_url"
    url = getattr(settings, name).get_secret_value()
    parts = urlsplit(url)
    cuts = []
    where = (app, "missing") if service == "database" else (app.topology, "check")
    check = getattr(*where)

    async def cut_then_check(*arguments):
        if not cuts:
            cuts.append(proxy.cut())
        return await check(*arguments)

    monkeypatch.setattr(*where, cut_then_check)
    async with Proxy(parts.hostname, parts.port) as proxy:
        through = settings.model_copy(update={name: SecretStr(proxy.url(url))})
        ledger = Ledger()
        async with client(settings.broker) as agent, running_worker(through):
            await ledger.publish(agent, [logged() for _ in range(5)])
            await ledger.hear(agent)
    assert cuts
    await ledger.balance(settings.database)
