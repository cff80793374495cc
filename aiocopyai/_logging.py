"""``COPYAI_LOG``: the library's log on standard error, without a change to the program.

The log of the command line is set up in `cli._runner`.
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
    """Set up the log according to ``COPYAI_LOG``, unless the program has configured the library's logger itself.

    At ``debug``, each attempt is one line: method, path, status, milliseconds and the number of the attempt.

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
