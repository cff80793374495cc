"""The library's log, as messages of the command."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

from aiocopyai.cli._output import echo_err


class _StderrHandler(logging.Handler):
    """Writes to what is standard error at the time of the message."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            echo_err(self.format(record))
        except Exception:  # noqa: BLE001 (logging must not end the program)
            self.handleError(record)


@contextmanager
def log_to_stderr(*, debug: bool) -> Generator[None]:
    """Print the library's warnings on standard error while this lasts; with `debug`, each of its steps."""
    logger = logging.getLogger("aiocopyai")
    handler = _StderrHandler()
    if debug:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
