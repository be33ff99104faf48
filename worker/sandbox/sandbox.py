"""The sandbox itself: a broker and a database for as long as a `with` block lasts.

Owns the temporary folder in which everything lives, and the order of events: both services are
started at the same time, and whatever was started is ended, in every way in which the block, or
the process, can be left.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self

from worker.sandbox.binaries import passable_by_others
from worker.sandbox.leftovers import Record, clean_up
from worker.sandbox.selection import open_postgres, open_rabbitmq
from worker.sandbox.service import Say, Surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from worker.sandbox.postgres import Postgres
    from worker.sandbox.rabbitmq import RabbitMQ

PREFIX = "agent-persistence-sandbox-"


def print_to_stderr(line: str) -> None:
    """Say something to the person at the terminal."""
    print(f"sandbox: {line}", file=sys.stderr, flush=True)  # noqa: T201


class Sandbox:
    """A real PostgreSQL and a real RabbitMQ, found or made, that end with the `with` block.

    `postgres` and `rabbitmq` name a kind (url, wheel, docker, local, install) or several in order
    of preference ("local,install"); without them, WORKER_SANDBOX_POSTGRES and
    WORKER_SANDBOX_RABBITMQ do, and without those the sandbox looks for itself.
    `keep` leaves the folder with data and logs behind; the services are stopped all the same.
    `within` is where that folder is made, instead of where temporary files are.
    `postgres_settings` are PostgreSQL parameters, `rabbitmq_settings` lines of rabbitmq.conf.
    """

    postgres: Postgres
    rabbitmq: RabbitMQ
    database_url: str
    amqp_url: str

    def __init__(
        self,
        postgres: str | None = None,
        rabbitmq: str | None = None,
        *,
        say: Say = print_to_stderr,
        keep: bool = False,
        within: Path | None = None,
        postgres_settings: Mapping[str, str] | None = None,
        rabbitmq_settings: Mapping[str, str] | None = None,
        rabbitmq_plugins: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._environment = dict(os.environ if environment is None else environment)
        self._postgres_kind = postgres or self._environment.get("WORKER_SANDBOX_POSTGRES")
        self._rabbitmq_kind = rabbitmq or self._environment.get("WORKER_SANDBOX_RABBITMQ")
        self._say = say
        self._keep = keep
        self._within = within
        self._postgres_settings = dict(postgres_settings or {})
        self._rabbitmq_settings = dict(rabbitmq_settings or {})
        self._rabbitmq_plugins = tuple(rabbitmq_plugins)
        self._closing = contextlib.ExitStack()
        self._cancelled = threading.Event()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        """Start both services; on failure nothing of them is left."""
        self._closing.enter_context(_terminate_as_interrupt())
        self._closing.enter_context(_close_at_exit(self))
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        cache = cache_folder(self._environment)
        clean_up(cache, self._say)
        directory = _make_directory(self._within or Path(tempfile.gettempdir()))
        self._closing.callback(self._remove, directory)
        record = self._closing.enter_context(Record.open(cache, directory))
        surroundings = Surroundings(
            directory=directory,
            cache=cache,
            environment=self._environment,
            say=self._say,
            cancelled=self._cancelled,
            closing=self._closing,
            started=record.add,
        )
        with ThreadPoolExecutor(2, thread_name_prefix="sandbox") as threads:
            postgres = threads.submit(
                open_postgres, self._postgres_kind, surroundings, self._postgres_settings
            )
            rabbitmq = threads.submit(
                open_rabbitmq,
                self._rabbitmq_kind,
                surroundings,
                self._rabbitmq_settings,
                self._rabbitmq_plugins,
            )
            name = f"sandbox_{secrets.token_hex(4)}"
            try:
                self.postgres = postgres.result()
                self.database_url = self.postgres.create(name)
                self.rabbitmq = rabbitmq.result()
                self.amqp_url = self.rabbitmq.create(name)
            except BaseException:
                self._cancelled.set()  # so that the other thread does not wait for its server
                raise

    def close(self) -> None:
        """Drop what was created in a given server, end what was started, remove the folder."""
        self._cancelled.set()
        self._closing.close()

    def _remove(self, directory: Path) -> None:
        if self._keep:
            self._say(f"data and logs are kept in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Return where unpacked packages, and notes about running sandboxes, are kept."""
    if chosen := environment.get("WORKER_SANDBOX_CACHE"):
        return Path(chosen).expanduser().absolute()
    folder = Path(environment.get("HOME") or Path.home(), ".cache", "agent-persistence")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a user without a home folder
        return Path(tempfile.gettempdir(), f"agent-persistence-cache-{os.getuid()}")
    return folder


def _make_directory(parent: Path) -> Path:
    """Make the folder of a sandbox; below it, root's PostgreSQL runs as another user."""
    if os.geteuid() == 0 and not passable_by_others(parent):
        parent = Path("/tmp")  # noqa: S108 (the name below is made by mkdtemp)
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    directory.chmod(0o711)
    return directory


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM unwind the stack, as Ctrl-C does, unless somebody handles it already."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is signal.default_int_handler:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def _close_at_exit(sandbox: Sandbox) -> Iterator[None]:
    """Close at the end of this process, if nobody did; a forked child leaves it alone."""
    owner = os.getpid()

    def close() -> None:
        if os.getpid() == owner:
            sandbox.close()

    atexit.register(close)
    try:
        yield
    finally:
        atexit.unregister(close)
