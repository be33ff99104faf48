"""What the worker does to the logging of the program that it runs in."""

import logging

from worker.logs import without_client_troubles


def test_loggers_of_clients_get_their_levels_back():
    """A demonstration that runs inside another program leaves that program's logging as it was."""
    logger = logging.getLogger("contracts.client")
    logger.setLevel(logging.WARNING)
    try:
        with without_client_troubles():
            assert logger.getEffectiveLevel() == logging.CRITICAL
        assert logger.level == logging.WARNING
    finally:
        logger.setLevel(logging.NOTSET)
