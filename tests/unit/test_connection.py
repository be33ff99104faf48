"""What a broker, or what stands before it, can do to a connection attempt is one of two errors."""

import asyncio
import socket
import threading

import pytest
import uvloop

from worker.broker.connection import check_internals, connect, place
from worker.errors import Unavailable


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_proxy_that_accepts_and_closes_makes_the_broker_unavailable(new_loop):
    """As a load balancer does while the broker behind it starts; on either event loop, every time."""

    held = []

    def hang_up(listener: socket.socket) -> None:
        for _ in range(10):
            accepted, _ = listener.accept()
            accepted.shutdown(socket.SHUT_WR)
            held.append(accepted)

    async def attempts(port: int) -> None:
        for _ in range(10):
            with pytest.raises(Unavailable):
                await connect(f"amqp://u:geheim@127.0.0.1:{port}/v", name="test")

    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        asyncio.Runner(loop_factory=new_loop) as runner,
    ):
        proxy = threading.Thread(target=hang_up, args=(listener,))
        proxy.start()
        runner.run(attempts(listener.getsockname()[1]))
        proxy.join()
        for accepted in held:
            accepted.close()


async def test_a_broker_that_is_not_there_is_unavailable_and_no_secret_is_said():
    """The sentence names the place."""
    with pytest.raises(Unavailable) as caught:
        await connect("amqp://u:geheim@127.0.0.1:9/v", name="test")
    assert "127.0.0.1:9/v" in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_places_show_no_user_and_no_password():
    """For logs and errors."""
    assert place("amqps://u:p@h/v") == "h:5671/v"
    assert place("amqp://u:p@h:1/") == "h:1/"


def test_the_installed_client_library_is_built_as_the_tap_expects():
    """Else the worker would refuse to start, and say which version it needs."""
    check_internals()
