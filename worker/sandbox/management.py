"""RabbitMQ's management API: virtual hosts without rabbitmqctl.

Owns the HTTP requests that a scratch virtual host takes.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote, unquote, urlsplit

from worker.sandbox.administration import exists_already
from worker.sandbox.errors import SandboxError

REQUEST_SECONDS = 30.0


@dataclass(frozen=True, slots=True, repr=False)
class ManagementAdministration:
    """Administers a broker by the HTTP API of its management plugin."""

    url: str
    user: str
    password: str

    @classmethod
    def parse(cls, url: str, user: str, password: str) -> ManagementAdministration:
        """Read a URL; a user in it comes before the one given beside it."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SandboxError(
                "WORKER_SANDBOX_RABBITMQ_MANAGEMENT is not a URL such as http://localhost:15672."
            )
        place = parts.netloc.rpartition("@")[2]
        return cls(
            url=f"{parts.scheme}://{place}{parts.path.rstrip('/')}",
            user=unquote(parts.username) if parts.username else user,
            password=unquote(parts.password or "") if parts.username else password,
        )

    def answers(self) -> bool:
        """Whether the API can be used by this user."""
        try:
            return self._request("GET", "whoami") == HTTPStatus.OK
        except SandboxError:
            return False

    def add_virtual_host(self, name: str, user: str) -> None:
        """Create a virtual host in which the user may do everything."""
        place = f"vhosts/{quote(name, safe='')}"
        if self._request("GET", place) == HTTPStatus.OK:
            raise exists_already(name)
        self._change("PUT", place, {})
        place = f"permissions/{quote(name, safe='')}/{quote(user, safe='')}"
        self._change("PUT", place, {"configure": ".*", "write": ".*", "read": ".*"})

    def delete_virtual_host(self, name: str) -> None:
        """Delete a virtual host with all that is in it."""
        self._change("DELETE", f"vhosts/{quote(name, safe='')}")

    def control(self, *arguments: str) -> str:
        """Refuse: the management API cannot run rabbitmqctl."""
        raise SandboxError(
            f"rabbitmqctl {' '.join(arguments)} cannot be run: this broker is administered by its "
            "management API. Use a RabbitMQ that the sandbox starts itself."
        )

    def _change(self, method: str, path: str, body: dict[str, str] | None = None) -> None:
        status = self._request(method, path, body)
        if status not in {HTTPStatus.CREATED, HTTPStatus.NO_CONTENT}:
            raise SandboxError(
                f"The management API on {self.url} answered {method} {path} with status {status}: "
                f"the user {self.user!r} must have the tag administrator."
            )

    def _request(self, method: str, path: str, body: dict[str, str] | None = None) -> int:
        """Return the status with which the API answers."""
        parts = urlsplit(self.url)
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        login = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body)
        with contextlib.closing(kind(parts.netloc, timeout=REQUEST_SECONDS)) as connection:
            try:
                connection.request(method, f"{parts.path}/api/{path}", content, headers)
                with connection.getresponse() as answer:
                    return answer.status
            except (OSError, http.client.HTTPException) as error:
                raise SandboxError(
                    f"The management API on {self.url} cannot be reached: {error}."
                ) from error
