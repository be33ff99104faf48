"""Login roles bound to tenants, in a database that holds the same keys for several of them."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import asyncpg

from support.tables import connected, rows


class Logins:
    """Login roles of one test, under names that are nobody else's."""

    def __init__(self, superuser: str) -> None:
        self.superuser = superuser
        self._made: list[str] = []

    def name(self, short: str) -> str:
        return f"t{os.getpid()}_{short}"

    def url(self, short: str) -> str:
        parts = urlsplit(self.superuser)
        place = f"{self.name(short)}:secret@{parts.hostname}:{parts.port}"
        return urlunsplit(parts._replace(netloc=place))

    async def make(self, short: str, *groups: str) -> None:
        """A role that may log in, as a member of these groups."""
        async with connected(self.superuser) as admin:
            await admin.execute(f"CREATE ROLE {self.name(short)} LOGIN PASSWORD 'secret'")
            self._made.append(self.name(short))
            for group in groups:
                await admin.execute(f"GRANT {group} TO {self.name(short)}")

    async def reader(
        self,
        short: str,
        tenant: str | None,
        *,
        session: UUID | None = None,
        every_session: bool = False,
    ) -> None:
        """A reader of one tenant; of none means an application that is trusted to say for whom it reads."""
        await self.make(short, "worker_reader")
        async with connected(self.superuser) as admin:
            await admin.execute(
                "INSERT INTO tenant_roles (role_name, tenant_id, session_id, every_session) VALUES ($1, $2, $3, $4)",
                self.name(short),
                tenant,
                session,
                every_session,
            )

    @asynccontextmanager
    async def login(self, short: str) -> AsyncIterator[asyncpg.Connection]:
        async with connected(self.url(short)) as connection:
            yield connection

    async def drop(self) -> None:
        async with connected(self.superuser) as admin:
            for name in self._made:
                await admin.execute(f"REASSIGN OWNED BY {name} TO CURRENT_USER")
                await admin.execute(f"DROP OWNED BY {name} CASCADE")
                await admin.execute(f"DROP ROLE {name}")


async def may_make_roles(url: str) -> bool:
    [me] = await rows(url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    return bool(me["rolsuper"])
