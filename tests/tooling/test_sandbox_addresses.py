"""How the sandbox reads and writes the URLs of databases, brokers and the management API."""

import pytest

from worker.sandbox import SandboxError, databases, rabbitmq
from worker.sandbox.given import broker_address
from worker.sandbox.management import ManagementAdministration


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://me:p%40ss%2Fword@db.example:5433/shop?ssl=require",
        "postgresql+asyncpg://me:secret@[::1]:5432/shop",
        "postgresql+asyncpg://me@localhost:5432/with%20blank",
    ],
)
def test_a_database_url_is_written_as_it_was_read(url):
    """Special characters, IPv6 addresses and options survive."""
    address = databases.Address.parse(url)
    assert address.url(address.database) == url


def test_another_database_has_the_same_server_and_login():
    """Only the name of the database changes."""
    address = databases.Address.parse("postgres://me:secret@db.example/shop?ssl=require")
    assert address.url("scratch") == (
        "postgresql+asyncpg://me:secret@db.example:5432/scratch?ssl=require"
    )


def test_the_driver_itself_is_told_of_tls_in_its_own_word():
    """SQLAlchemy says ssl=, asyncpg's URL says sslmode=."""
    address = databases.Address.parse("postgresql+asyncpg://me:secret@db.example/shop?ssl=require")
    assert address.dsn() == "postgresql://me:secret@db.example:5432/shop?sslmode=require"


def test_a_database_name_is_quoted():
    """A name cannot end the identifier it stands in."""
    assert databases.quoted('a"b') == '"a""b"'


def test_a_url_of_something_else_is_refused_without_repeating_it():
    """The text says what is wrong and does not show a password."""
    with pytest.raises(SandboxError, match="not a PostgreSQL URL") as caught:
        databases.Address.parse("mysql://me:secret@db.example/shop")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "written"),
    [
        ("amqp://me:p%40ss@mq.example/shop", "amqp://me:p%40ss@mq.example:5672/a%2Fb"),
        ("amqps://me:x@mq.example/?heartbeat=5", "amqps://me:x@mq.example:5671/a%2Fb?heartbeat=5"),
        ("amqp://[::1]", "amqp://guest:guest@[::1]:5672/a%2Fb"),
    ],
)
def test_another_virtual_host_has_the_same_broker_and_login(url, written):
    """Only the virtual host changes; scheme, port, login and options stay."""
    assert broker_address(url).url("a/b") == written


def test_an_http_url_is_not_a_broker():
    """The management API's URL in AMQP_URL is noticed."""
    with pytest.raises(SandboxError, match="must begin with amqp"):
        broker_address("http://localhost:15672")


def test_a_scratch_virtual_host_is_made_in_one_broker_that_is_named():
    """An address of several hosts, which the product takes, is refused in a sentence that shows no secret."""
    with pytest.raises(SandboxError, match="one host") as caught:
        broker_address("amqp://me:geheim@a:5672,b:5672/")
    assert "geheim" not in str(caught.value)


def test_the_management_api_uses_the_brokers_login_unless_it_has_one():
    """A user in the management URL comes first."""
    alone = ManagementAdministration.parse("http://mq:15672/", "me", "secret")
    assert (alone.url, alone.user, alone.password) == ("http://mq:15672", "me", "secret")
    own = ManagementAdministration.parse("https://a%20b:c@mq/prefix/", "me", "secret")
    assert (own.url, own.user, own.password) == ("https://mq/prefix", "a b", "c")


def test_nothing_shows_a_password_by_accident():
    """What a test prints when it fails holds no secret."""
    shown = repr(
        [
            databases.Address("h", 1, "me", "secret", "d"),
            rabbitmq.Address("h", 1, "me", "secret"),
            ManagementAdministration("http://h", "me", "secret"),
        ]
    )
    assert "secret" not in shown
