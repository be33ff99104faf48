"""The kernel is told to notice a server that is gone without a word."""

import socket
import sys

import pytest

from worker.store.database import Database


@pytest.mark.skipif(sys.platform != "linux", reason="the options of other systems differ")
async def test_each_connection_to_postgresql_notices_silence(settings):
    """What the server's kernel leaves without an answer for ten seconds is lost, and it is asked every few seconds."""
    if "host=/" in settings.database:
        pytest.skip("a Unix socket knows no silence")
    database = Database(settings.database, name="silence")
    try:
        async with database.transaction() as connection:
            found = connection._transport.get_extra_info("socket")
            assert found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
            assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 5
    finally:
        await database.close()
