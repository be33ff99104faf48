"""Structured logs: one JSON object a line on standard error. No bodies, no secrets.

The libraries' own loggers are brought into the same form, from warnings upwards.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog


def configure(level: str, **bound: Any) -> None:
    """Log from `level` upwards, with these values on every line."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        # Text and line end in one write: several processes share standard error, and lines must not mix.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**bound)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    # aiormq and aio-pika report every lost connection as an error; the worker says so itself, once.
    for name in ("aiormq", "aio_pika"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def without_client_troubles() -> Iterator[None]:
    """Keep what clients say of lost connections off the screen, where a ledger tells of every message anyway."""
    loggers = [logging.getLogger(name) for name in ("contracts.client", "aio_pika", "aiormq")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:  # the caller may be a program of somebody else
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
