"""Waiting for a run to end, gently: looks that grow apart, and a deadline that holds."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiocopyai._text import escape
from aiocopyai.errors import CopyAIError, NotFoundError, RunFailedError, RunTimeoutError
from aiocopyai.models import Run, RunStatus


logger = logging.getLogger("aiocopyai")

FIRST_POLL: Final = 1.0
"""Seconds until the second look; each wait after it is half as long again, up to the caller's cap."""
_GROWTH: Final = 1.5
NOT_FOUND_GRACE: Final = 15.0
"""Seconds for which a run may be unknown: a 404 for a run just started has been seen."""


async def wait(
    get: Callable[[str, str], Awaitable[Run]],
    workflow_id: str,
    run_id: str,
    *,
    timeout: float | None,  # noqa: ASYNC109 (the deadline is the point, and its error names the run)
    max_poll_interval: float,
    grace: float = NOT_FOUND_GRACE,
) -> Run:
    """Look at a run until it is over, and return it as it ended.

    Raises:
        RunFailedError: it ended as ``FAILED``.
        RunTimeoutError: it was not over after `timeout` seconds.
        NotFoundError: it is still unknown after the first seconds.
        CopyAIError: it can't be read, and trying again won't help.
    """
    begun = time.monotonic()
    status: RunStatus | None = None
    pause = min(FIRST_POLL, max_poll_interval)
    deadline = asyncio.timeout(timeout)
    try:
        async with deadline:
            while True:
                seen = await _look(get, workflow_id, run_id, may_be_unknown=time.monotonic() - begun < grace)
                if seen is not None:
                    status = seen.status or status
                    if seen.status is not None and seen.status.is_final:
                        return _finished(seen)
                await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 (jitter keeps no secret)
                pause = min(pause * _GROWTH, max_poll_interval)
    except TimeoutError:
        if timeout is None or not deadline.expired():
            raise
    raise RunTimeoutError(workflow_id, run_id, timeout, status)


def _finished(run: Run) -> Run:
    if run.status == RunStatus.FAILED:
        raise RunFailedError(run)
    return run


async def _look(
    get: Callable[[str, str], Awaitable[Run]], workflow_id: str, run_id: str, *, may_be_unknown: bool
) -> Run | None:
    """Read the run; None where that failed in a way that may pass."""
    try:
        return await get(workflow_id, run_id)
    except NotFoundError:
        if not may_be_unknown:
            raise
    except CopyAIError as error:
        if not error.retryable:
            raise
        logger.warning("waiting for run %s: %s; looking again", escape(run_id), error)
    return None
