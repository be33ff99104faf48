"""The address of a broker that is a cluster: one URL that names several hosts.

`amqp://user:password@a:5672,b:5672,c:5672/vhost` means the same broker at three places: a client connects to any of them,
and to another one when that goes away. Owns how such a URL is taken apart; promises that a URL of one host stays as it is.
"""

import re
from urllib.parse import unquote, urlsplit

_URL = re.compile(
    r"(?P<scheme>amqps?)://(?P<login>[^/?#]*@)?(?P<hosts>[^/?#@]*)(?P<rest>.*)", re.DOTALL
)
_DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}
_LIKE = "like amqp://user:password@host:5672/vhost, or with several hosts a:5672,b:5672"


def addresses(url: str) -> tuple[str, ...]:
    """A URL for each host that is named, in that order. Raises ValueError, which holds nothing of the URL."""
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError(f"must begin with amqp:// or amqps://, {_LIKE}")
    scheme, login, hosts, rest = found.group("scheme", "login", "hosts", "rest")
    names = hosts.split(",")
    if len(names) > 1 and not all(names):
        raise ValueError(f"one of its hosts is empty; it must look {_LIKE}")
    singles = tuple(f"{scheme}://{login or ''}{name}{rest}" for name in names)
    for single in singles:
        _check(single)
    return singles


def _check(url: str) -> None:
    """Refuse a port that is no number, before a driver does in its own words."""
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ValueError(f"its port is no number from 0 to 65535; it must look {_LIKE}") from None


def place(url: str) -> str:
    """Hosts, ports and virtual host, without secrets: a:5672,b:5672/vhost."""
    singles = [urlsplit(single) for single in addresses(url)]
    hosts = [
        f"{one.hostname or 'localhost'}:{one.port or _DEFAULT_PORTS[one.scheme]}" for one in singles
    ]
    return ",".join(hosts) + (singles[0].path or "/")


def user(url: str) -> str:
    """The user that a URL logs in as; RabbitMQ's own `guest` where it names none."""
    return unquote(urlsplit(addresses(url)[0]).username or "guest")
