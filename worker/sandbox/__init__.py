"""A throw-away PostgreSQL and RabbitMQ for the demo, the tests and the benchmarks.

with Sandbox() as sandbox:
    sandbox.database_url, sandbox.amqp_url

Promises: it says what it chose, it never attaches to a server unasked, it works only inside
databases and virtual hosts that it made, and it ends everything that it started.
"""

from worker.sandbox.errors import SandboxError
from worker.sandbox.postgres import Postgres
from worker.sandbox.rabbitmq import RabbitMQ
from worker.sandbox.sandbox import Sandbox
from worker.sandbox.service import Kind, Service

__all__ = ["Kind", "Postgres", "RabbitMQ", "Sandbox", "SandboxError", "Service"]
