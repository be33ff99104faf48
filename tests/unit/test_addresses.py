"""An address of RabbitMQ may name several hosts of one cluster."""

import pytest

from contracts.client import Publisher
from contracts.publishing.addresses import addresses, place
from worker.errors import Misconfigured
from worker.settings import Settings


@pytest.mark.parametrize(
    ("url", "singles", "shown"),
    [
        ("amqp://a", ["amqp://a"], "a:5672/"),
        ("amqps://u:p@h/v", ["amqps://u:p@h/v"], "h:5671/v"),
        (
            "amqp://u:p,q@a:1,b,[::1]:3/v?heartbeat=5,6",
            [
                "amqp://u:p,q@a:1/v?heartbeat=5,6",
                "amqp://u:p,q@b/v?heartbeat=5,6",
                "amqp://u:p,q@[::1]:3/v?heartbeat=5,6",
            ],
            "a:1,b:5672,::1:3/v",
        ),
        (
            "amqps://u:p@ss@a,b?x=y",
            ["amqps://u:p@ss@a?x=y", "amqps://u:p@ss@b?x=y"],
            "a:5671,b:5671/",
        ),
    ],
)
def test_a_url_is_taken_apart_into_one_a_host(url, singles, shown):
    """User, password, virtual host and options are common to all; only hosts are split at a comma."""
    assert list(addresses(url)) == singles
    assert place(url) == shown


@pytest.mark.parametrize(
    "url", ["http://u:geheim@a,b/", "amqp://u:geheim@a,,b/", "amqp://u:geheim@a:1,b:x/", "a,b", ""]
)
def test_a_wrong_one_is_refused_without_its_secret(url):
    """By the function, the worker's settings and the publisher alike."""
    with pytest.raises(ValueError, match="must") as first:
        addresses(url)
    with pytest.raises(Misconfigured, match="AMQP_URL") as second:
        Settings.load(database_url="postgresql://a/b", amqp_url=url)
    with pytest.raises(ValueError, match="must look like amqp://") as third:
        Publisher(url)
    assert "geheim" not in f"{first.value} {second.value} {third.value}"


def test_the_settings_show_every_host_and_no_secret():
    """For logs, errors and the doctor."""
    settings = Settings.load(database_url="postgresql://a/b", amqp_url="amqp://u:geheim@a,b:1/v")
    assert settings.broker_place == "a:5672,b:1/v"
