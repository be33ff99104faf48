"""An address that names several hosts works as long as one of them does."""

from urllib.parse import urlsplit

import pytest
from support.events import logged
from support.ledger import Ledger
from support.workers import running_worker

from contracts.client import NotConnected, Publisher
from worker.broker.connection import connect
from worker.errors import Misconfigured, Unavailable


def with_hosts(url: str, *hosts: str) -> str:
    """The same address with these before its own host."""
    netloc = urlsplit(url).netloc
    login, _, own = netloc.rpartition("@")
    return url.replace(netloc, f"{login}@{','.join((*hosts, own))}", 1)


async def test_workers_and_agents_find_the_host_that_answers(settings, worker_url):
    """Two of three hosts are away; each connection is made all the same, and messages flow."""
    several = settings.model_copy(update={"amqp_url": type(settings.amqp_url)(worker_url)})
    ledger = Ledger()
    async with running_worker(several):
        for _ in range(5):  # the order is random: a first choice that is away is all but certain
            async with Publisher(several.broker, source="/agents/1") as publisher:
                event = logged()
                await publisher.persisted(event)
                ledger.published.append(event)
    await ledger.balance(settings.database)


@pytest.fixture
def worker_url(settings) -> str:
    return with_hosts(settings.broker, "127.0.0.1:9", "127.0.0.1:10")


async def test_every_host_that_is_away_is_named_and_no_secret():
    """For the worker and for an agent."""
    url = "amqp://u:geheim@127.0.0.1:9,127.0.0.1:10/v"
    with pytest.raises(Unavailable) as first:
        await connect(url, name="test")
    publisher = Publisher(url)
    with pytest.raises(NotConnected) as second:
        await publisher._open_link(lambda *_: None)
    for text in (str(first.value), str(second.value)):
        assert "127.0.0.1:9" in text
        assert "127.0.0.1:10" in text
        assert "geheim" not in text


async def test_a_refusal_by_the_only_host_that_answers_is_not_final(settings, worker_url):
    """The others may know the virtual host: they are away, so there is hope; alone, it is a wrong setting."""
    absent = "no-such-virtual-host"
    with pytest.raises(Misconfigured):
        await connect(_in(settings.broker, absent), name="test")
    with pytest.raises(Unavailable):
        await connect(_in(worker_url, absent), name="test")


def _in(url: str, virtual_host: str) -> str:
    return url.rpartition("/")[0] + "/" + virtual_host
