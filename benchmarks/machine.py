"""What was measured on: processor, memory, versions. Nothing that names the machine."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.services import POSTGRES_SETTINGS, Services

_PACKAGES = (
    "aio-pika",
    "aiormq",
    "asyncpg",
    "pydantic",
    "orjson",
    "sqlalchemy",
    "uvloop",
    "faststream",
    "celery",
    "mq-bridge",
)


def describe(services: Services) -> dict[str, str]:
    """The machine and the software, as pairs for a table."""
    packages = ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name)))
    settings = ", ".join(f"{name}={value}" for name, value in POSTGRES_SETTINGS.items())
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{_memory_gib():.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": sys.version.split()[0],
        "PostgreSQL": f"{services.sandbox.postgres.version} ({services.sandbox.postgres.kind}), {settings}",
        "RabbitMQ": f"{services.sandbox.rabbitmq.version} ({services.sandbox.rabbitmq.kind}), quorum queues of one member",
        "packages": packages,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
