"""The only reader of the environment: every setting, its default, and what it means.

Promises that a secret in DATABASE_URL or AMQP_URL is never printed: both are shown by `database_place` and
`broker_place` only. `worker run --help` lists what stands here.
"""

import os
import re
import socket
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from contracts.publishing import addresses
from worker.errors import Misconfigured

_MIB = 1024 * 1024
_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")
_TENANT_RULE = re.compile(r"[^{}=]*\{tenant\}[^{}=]*|[^{}=]+=(\*|[A-Za-z0-9_-]{1,64})")


class Settings(BaseSettings):
    """What an operator can set. DATABASE_URL and AMQP_URL matter; the rest has safe defaults."""

    model_config = SettingsConfigDict(env_prefix="WORKER_", extra="ignore", frozen=True)

    database_url: SecretStr = Field(
        validation_alias=AliasChoices("DATABASE_URL", "database_url"),
        description="PostgreSQL: postgresql+asyncpg://user:password@host:5432/database (postgresql:// is accepted); or DATABASE_URL_FILE names a file that holds it",
    )
    amqp_url: SecretStr = Field(
        validation_alias=AliasChoices("AMQP_URL", "amqp_url"),
        description="RabbitMQ: amqp://user:password@host:5672/vhost, or amqps:// for TLS; several hosts of a cluster are written a:5672,b:5672; or AMQP_URL_FILE names a file that holds it",
    )
    name: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}",
        description="this worker's name in logs, confirmations and connections",
    )
    families: str = Field("", description="families to consume, comma-separated; empty = all")
    batch_messages: int = Field(
        500,
        ge=1,
        le=10_000,
        description="most deliveries in one transaction; none is added once they hold as many events",
    )
    batch_bytes: int = Field(
        3 * _MIB,
        ge=1,
        description="most bytes of bodies in one transaction (one delivery may exceed it)",
    )
    transactions: int = Field(2, ge=1, le=16, description="transactions in flight per family")
    prefetch: int = Field(2000, ge=1, le=65535, description="most deliveries in hand per family")
    memory_budget: int = Field(
        48 * _MIB, ge=1024, description="most bytes of bodies in hand per process"
    )
    max_body_bytes: int = Field(
        8 * _MIB, ge=1024, description="largest body after decompression; a larger one is rejected"
    )
    tenant_of_user: str = Field(
        "",
        description="which users of RabbitMQ may publish for which tenant, comma-separated: 'agents-{tenant}', 'billing=acme', 'agents-operator=*'; empty = any for any",
    )
    reply_queues: str = Field(
        "agent.replies.*",
        description="pattern of queues that replies may be sent to, besides direct reply-to",
    )
    http_host: str = Field(
        "127.0.0.1", description="address of /livez, /readyz and /metrics (0.0.0.0 in a container)"
    )
    http_port: int = Field(
        8080,
        ge=0,
        le=65535,
        description="port of the same; process i of --processes takes this port + i; 0 = off",
    )
    log_level: str = Field(
        "info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error"
    )
    grace: float = Field(20, gt=0, description="seconds to finish what is in hand after SIGTERM")
    start_timeout: float = Field(
        60,
        ge=0,
        description="seconds to wait for PostgreSQL and RabbitMQ at start before exiting with 3",
    )
    statement_timeout: float = Field(
        60, gt=0, description="seconds a statement may take before the batch is tried again"
    )
    pool_size: int = Field(
        10, ge=1, le=1000, description="connections to PostgreSQL that a process keeps open"
    )
    pool_overflow: int = Field(
        4, ge=0, le=1000, description="connections that it opens beside them while it needs more"
    )
    pool_timeout: float = Field(
        10, gt=0, description="seconds to wait for a connection when all of these are in use"
    )
    retry_longest: float = Field(
        3, gt=0, description="longest pause in seconds between attempts while a service is away"
    )
    restart_longest: float = Field(
        15,
        gt=0,
        description="longest pause in seconds before a process of --processes that died is started again",
    )
    restart_reset_after: float = Field(
        60,
        gt=0,
        description="seconds that such a process must have run for its next pause to be the shortest again",
    )
    outbox_sweep_after: float = Field(
        30, gt=0, description="seconds after which an unpublished outbox row is taken over"
    )
    pause_seconds: float = Field(
        60, gt=0, description="how long a family pauses when most of its messages are refused"
    )
    pause_window: int = Field(1000, ge=1, description="messages that this is judged by")
    pause_minimum: int = Field(200, ge=1, description="fewest messages that it is judged by")
    pause_sources: int = Field(3, ge=1, description="fewest sources that must be refused")
    checkpoint_archive: str = Field(
        "",
        description="folder for compressed copies of checkpoints, made by 'worker maintain' and 'worker checkpoints archive'; empty = none",
    )
    archive: str = Field(
        "",
        description="folder into which 'worker maintain' archives months that are old enough; empty = what has to be archived stays in its table",
    )
    retention: str = Field(
        "",
        description="how long rows stay, where it is not the default: table=active/archive, comma-separated, such as execution_logs=1y/3y; see 'Retention' in docs/operations.md",
    )
    encryption_keys: SecretStr | None = Field(
        None,
        description="keys for columns that are stored encrypted (the rationale of decisions), comma-separated, the newest first; each is 32 random bytes in URL-safe base64; empty = they are stored plain; or WORKER_ENCRYPTION_KEYS_FILE names a file",
    )
    management_url: SecretStr | None = Field(
        None,
        description="RabbitMQ's management API, http://user:password@host:15672, for 'worker doctor' only: policies, alarms and limits",
    )
    allow_unsafe_database: bool = Field(
        False,
        description="run although PostgreSQL may lose commits in a crash (fsync, full_page_writes or synchronous_commit off): for trials only",
    )
    crash_point: str = Field(
        "", description="for tests: the point at which the worker kills itself"
    )

    @field_validator("database_url", mode="after")
    @classmethod
    def _is_postgresql(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in ("postgresql", "postgres", "postgresql+asyncpg"):
            raise ValueError("must begin with postgresql+asyncpg:// or postgresql://")
        _check_port(url, "several hosts are written ?host=a:5432&host=b:5432 behind the database")
        return SecretStr(f"postgresql+asyncpg://{rest}")

    @field_validator("amqp_url", mode="after")
    @classmethod
    def _is_amqp(cls, value: SecretStr) -> SecretStr:
        addresses.addresses(value.get_secret_value())
        return value

    @field_validator("encryption_keys", mode="after")
    @classmethod
    def _are_keys(cls, value: SecretStr | None) -> SecretStr | None:
        for place, key in enumerate(_listed(value.get_secret_value() if value else ""), 1):
            if not _KEY.fullmatch(key):
                raise ValueError(
                    f"key {place} is not 32 bytes in URL-safe base64 (44 characters that end in =)"
                )
        return value

    @field_validator("tenant_of_user", mode="after")
    @classmethod
    def _are_rules(cls, value: str) -> str:
        for rule in _listed(value):
            if not _TENANT_RULE.fullmatch(rule):
                raise ValueError(
                    f"{rule!r} is no rule: write 'agents-{{tenant}}' for a user of each tenant, 'user=tenant' or 'user=*'"
                )
        return value

    @field_validator("management_url", mode="after")
    @classmethod
    def _is_http(cls, value: SecretStr | None) -> SecretStr | None:
        url = urlsplit(value.get_secret_value()) if value is not None else None
        if url is not None and (url.scheme not in ("http", "https") or not url.hostname):
            raise ValueError("must begin with http:// or https:// and a host")
        return value

    @classmethod
    def load(cls, **given: Any) -> Self:
        """Settings from the environment; `given` overrides. Raises Misconfigured naming every wrong one."""
        chosen = {key: value for key, value in given.items() if value is not None}
        for name in SECRETS:
            if name not in chosen and (secret := _secret_from_file(environment_name(name))):
                chosen[name] = secret
        try:
            return cls(**chosen)
        except ValidationError as error:
            raise Misconfigured(_explain(error)) from None

    @cached_property
    def database(self) -> str:
        """The database URL with its secret, for the driver only."""
        return self.database_url.get_secret_value()

    @cached_property
    def broker(self) -> str:
        """The broker URL with its secret, for the driver only."""
        return self.amqp_url.get_secret_value()

    @property
    def database_place(self) -> str:
        """Where the database is, without secrets."""
        return place(self.database, 5432)

    @property
    def broker_place(self) -> str:
        """Where the broker is, without secrets."""
        return addresses.place(self.broker)

    @property
    def family_names(self) -> tuple[str, ...]:
        """The chosen families; empty for all."""
        return _listed(self.families)

    @property
    def tenant_rules(self) -> tuple[str, ...]:
        """Which users may publish for which tenant; empty for any."""
        return _listed(self.tenant_of_user)

    @property
    def publishing_user(self) -> str | None:
        """The user that our own messages name, where workers ask for it."""
        return addresses.user(self.broker) if self.tenant_of_user else None

    @property
    def encryption(self) -> tuple[str, ...]:
        """The keys of encrypted columns, newest first; empty where these are stored plain."""
        return _listed(self.encryption_keys.get_secret_value() if self.encryption_keys else "")


def _listed(text: str) -> tuple[str, ...]:
    """The entries of a comma-separated list."""
    return tuple(entry.strip() for entry in text.split(",") if entry.strip())


def _check_port(url: str, remedy: str) -> None:
    """Refuse an address whose port is no number, before a driver does in its own words."""
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ValueError(f"its port is no number from 0 to 65535; {remedy}") from None


SECRETS = ("database_url", "amqp_url", "encryption_keys")
"""Settings that may come from a file: DATABASE_URL_FILE and so on, as container platforms mount secrets."""


def _secret_from_file(name: str) -> str | None:
    """The content of the file that NAME_FILE names, where NAME itself is not set."""
    path = os.environ.get(f"{name}_FILE")
    if not path or os.environ.get(name):
        return None
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise Misconfigured(f"{name}_FILE: {path} cannot be read ({error.strerror})") from error


def place(url: str, default_port: int) -> str:
    """Host, port and path of a URL, without its secrets."""
    parts = urlsplit(url)
    return f"{parts.hostname or 'localhost'}:{parts.port or default_port}{parts.path or '/'}"


def environment_name(field: str) -> str:
    """The environment variable that sets a field."""
    return field.upper() if field in ("database_url", "amqp_url") else f"WORKER_{field.upper()}"


def _explain(error: ValidationError) -> str:
    """Each wrong setting with its variable and what is wrong; never a value that may hold a secret."""
    problems = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        name = environment_name(str(item["loc"][0]).lower() if item["loc"] else "?")
        problems.append(
            f"{name} is not set" if item["type"] == "missing" else f"{name}: {item['msg']}"
        )
    return "; ".join(problems) + " (see 'worker run --help' for all settings)"
