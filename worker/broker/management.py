"""RabbitMQ's management API, as far as AMQP does not show it: policies, alarms and limits.

Asked only where WORKER_MANAGEMENT_URL names it; the user needs the tag `monitoring`. Reads only.
Promises Unavailable, without a secret in its text, for whatever the API or the network does.
"""

import asyncio
import base64
import http.client
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from worker.errors import Unavailable

_SECONDS = 10.0
_MOST_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, repr=False)
class Management:
    """Where the API is, as whom to log in, and which virtual host to look at."""

    url: str
    user: str
    password: str
    virtual_host: str

    @classmethod
    def of(cls, url: str, broker_url: str) -> "Management":
        """The API at this URL; without a user in it, the broker's."""
        broker, own = urlsplit(broker_url), urlsplit(url)
        login = own if own.username else broker
        return cls(
            url=f"{own.scheme}://{own.netloc.rpartition('@')[2]}{own.path.rstrip('/')}",
            user=unquote(login.username or "guest"),
            password=unquote(login.password or "guest"),
            virtual_host=unquote(broker.path[1:]) or "/",
        )

    async def queues(self) -> list[dict[str, Any]]:
        """Every queue of the virtual host, with the policies that are in effect."""
        found: list[dict[str, Any]] = await self._get(f"queues/{quote(self.virtual_host, safe='')}")
        return found

    async def nodes(self) -> list[dict[str, Any]]:
        """Every node of the cluster, with its alarms and limits."""
        found: list[dict[str, Any]] = await self._get("nodes")
        return found

    async def limits(self) -> dict[str, int]:
        """The limits of the virtual host; none is an empty dictionary."""
        found = await self._get(f"vhost-limits/{quote(self.virtual_host, safe='')}")
        limits: dict[str, int] = found[0].get("value", {}) if found else {}
        return limits

    async def _get(self, path: str) -> Any:
        try:
            return await asyncio.to_thread(self._request, path)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unavailable(
                f"the management API at {self.url} cannot be read: {error}"
            ) from error

    def _request(self, path: str) -> Any:
        parts = urlsplit(self.url)
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        login = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        connection = kind(parts.netloc, timeout=_SECONDS)
        try:
            connection.request(
                "GET", f"{parts.path}/api/{path}", headers={"Authorization": f"Basic {login}"}
            )
            answer = connection.getresponse()
            if answer.status != HTTPStatus.OK:
                raise ValueError(f"it answers {answer.status} {answer.reason} to {path}")
            return json.loads(answer.read(_MOST_BYTES))
        finally:
            connection.close()
