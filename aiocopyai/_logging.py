"""``COPYAI_LOG``: enable logging to standard error with an environment variable.

`cli._runner` configures the log of the command line.
"""

from __future__ import annotations

import logging
import os
from typing import Final

from aiocopyai._text import excerpt
from aiocopyai.errors import ConfigurationError


_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING}

logger = logging.getLogger("aiocopyai")


def level_from_environment() -> int | None:
    """Return the level that ``COPYAI_LOG`` names; None if it is not set.

    Raises:
        ConfigurationError: its value is not a level.
    """
    name = os.environ.get("COPYAI_LOG")
    if not name:
        return None
    level = _LEVELS.get(name.lower())
    if level is None:
        raise ConfigurationError(f"COPYAI_LOG must be {', '.join(_LEVELS)} or not set, got {excerpt(name)}")
    return level


def configure_from_environment() -> None:
    """Configure the library's logger according to ``COPYAI_LOG``, unless the program has added a handler to it.

    The level ``debug`` logs one line per attempt: method, path, status, milliseconds and the number of the attempt.

    Raises:
        ConfigurationError: its value is not a level.
    """
    level = level_from_environment()
    if level is None or logger.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
