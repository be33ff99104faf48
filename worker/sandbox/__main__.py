"""`python -m worker.sandbox`: a PostgreSQL and a RabbitMQ to try things with, until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys

from worker.sandbox import Sandbox, SandboxError

CHOICE = "url, wheel, docker, local or install, or several in order of preference (local,install)"


def main(arguments: list[str] | None = None) -> int:
    """Start both, print how to connect, and wait."""
    parser = argparse.ArgumentParser(
        prog="python -m worker.sandbox",
        description="Start a PostgreSQL and a RabbitMQ of their own, print how to connect to them, "
        "and stop and remove them at Ctrl-C.",
        epilog="Environment: WORKER_SANDBOX_POSTGRES and WORKER_SANDBOX_RABBITMQ stand for the "
        "options. With url, DATABASE_URL and AMQP_URL are used, inside a database and a virtual "
        "host made for it; WORKER_SANDBOX_RABBITMQ_MANAGEMENT is the URL of that broker's "
        "management API. WORKER_SANDBOX_CACHE is where unpacked packages are kept.",
    )
    parser.add_argument("--postgres", metavar="KIND", help=CHOICE)
    parser.add_argument("--rabbitmq", metavar="KIND", help="the same, without wheel")
    parser.add_argument("--keep", action="store_true", help="keep the folder with data and logs")
    options = parser.parse_args(arguments)
    try:
        with (
            contextlib.suppress(KeyboardInterrupt),
            Sandbox(options.postgres, options.rabbitmq, keep=options.keep) as sandbox,
        ):
            sys.stdout.write(
                f"export DATABASE_URL='{sandbox.database_url}'\n"
                f"export AMQP_URL='{sandbox.amqp_url}'\n"
                "# Ctrl-C stops and removes both.\n"
            )
            sys.stdout.flush()
            signal.pause()
    except SandboxError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
