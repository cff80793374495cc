"""The library's log, as messages of the command."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

from aiocopyai._logging import level_from_environment
from aiocopyai.cli._options import Settings
from aiocopyai.cli._output import echo_err


class _StderrHandler(logging.Handler):
    """Writes to what is standard error at the time of the message."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            echo_err(self.format(record))
        except Exception:  # noqa: BLE001 (logging must not end the program)
            self.handleError(record)


@contextmanager
def log_to_stderr(settings: Settings) -> Generator[None]:
    """Print the library's warnings on standard error while this lasts; with ``--debug``, every request.

    Raises:
        ConfigurationError: ``COPYAI_LOG`` names no level.
    """
    chosen = logging.DEBUG if settings.debug else level_from_environment()
    logger = logging.getLogger("aiocopyai")
    handler = _StderrHandler()
    if chosen is not None:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    previous = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(chosen or (logging.ERROR if settings.quiet else logging.WARNING))
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(previous[0])
        logger.propagate = previous[1]
