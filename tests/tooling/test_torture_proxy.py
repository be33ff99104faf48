"""The proxy breaks a connection in each of its ways, and is an honest network again afterwards."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from support.waiting import until

from worker.torture.proxy import Proxy


@asynccontextmanager
async def echo():
    """A service that sends back what comes, by way of a proxy; how many bytes came to it."""
    came = bytearray()

    async def answer(reader, writer):
        while piece := await reader.read(1000):
            came.extend(piece)
            writer.write(piece)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, Proxy(*server.sockets[0].getsockname()) as proxy:
        yield proxy, came


async def connected(proxy):
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def asked(connection, text=b"hello"):
    reader, writer = connection
    writer.write(text)
    return await asyncio.wait_for(reader.readexactly(len(text)), 20)


async def is_cut(connection):
    """Whether the connection ends, for whatever reason."""
    try:
        return not await asyncio.wait_for(connection[0].read(1), 20)
    except ConnectionError:
        return True
    finally:
        connection[1].close()


def test_an_address_is_replaced_and_its_secrets_stay():
    """User, password, path and query go to the service as they were."""
    proxy = Proxy("service", 1)
    proxy.port = 7
    assert proxy.url("amqp://u:p@service:5672/host?x=1") == "amqp://u:p@127.0.0.1:7/host?x=1"
    assert proxy.url("postgresql://service/name") == "postgresql://127.0.0.1:7/name"


async def test_connections_are_cut_and_made_anew():
    """Every connection ends at once; the next one is carried as before."""
    async with echo() as (proxy, _):
        first, second = await connected(proxy), await connected(proxy)
        assert await asked(first) == await asked(second) == b"hello"
        proxy.cut()
        assert await is_cut(first)
        assert await is_cut(second)
        third = await connected(proxy)
        assert await asked(third) == b"hello"
        third[1].close()


async def test_connections_are_refused_until_it_is_healed():
    """Those that are there end, new ones end at once, and after healing they are carried."""
    async with echo() as (proxy, _):
        first = await connected(proxy)
        await asked(first)
        proxy.refuse()
        assert await is_cut(first)
        assert await is_cut(await connected(proxy))
        proxy.heal()
        last = await connected(proxy)
        assert await asked(last) == b"hello"
        last[1].close()


async def test_a_half_open_connection_swallows_what_comes_and_ends_with_the_fault():
    """Old and new connections stay open and silent; nothing gets to the service; healing cuts them."""
    async with echo() as (proxy, came):
        old = await connected(proxy)
        await asked(old)
        proxy.swallow()
        new = await connected(proxy)
        for reader, writer in (old, new):
            writer.write(b"lost")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.2)
        assert came == b"hello"
        proxy.heal()
        assert await is_cut(old)
        assert await is_cut(new)


@pytest.mark.parametrize("how", ["delay", "slow"])
async def test_a_late_or_thin_line_takes_its_time(how):
    """Bytes come whole and in order, no sooner than the fault allows."""
    loop = asyncio.get_running_loop()
    async with echo() as (proxy, _):
        connection = await connected(proxy)
        if how == "delay":
            proxy.delay(0.1)
        else:
            proxy.slow(len(b"hello") / 0.1)
        begin = loop.time()
        assert await asked(connection) == b"hello"
        assert loop.time() - begin >= 0.19  # both ways
        proxy.heal()
        connection[1].close()


async def test_nothing_is_left_when_it_is_closed():
    """Open connections are cut, and the port is free."""
    async with echo() as (proxy, _):
        connection = await connected(proxy)
        await asked(connection)
    assert await is_cut(connection)
    assert await until(lambda: not proxy._links)
    with pytest.raises(OSError, match=r"refused|failed"):
        await connected(proxy)
