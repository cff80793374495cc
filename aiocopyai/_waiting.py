"""Waiting until a run finishes: polls at growing intervals, within a time-out."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from attrs import define, field, frozen

from aiocopyai._text import escape, excerpt, truncate
from aiocopyai._validation import check_seconds
from aiocopyai.errors import CopyAIError, NotFoundError, RunFailedError, RunTimeoutError
from aiocopyai.models import Run, RunStatus


logger = logging.getLogger("aiocopyai")

FIRST_INTERVAL: Final = 1.0
"""Seconds between the first two polls; each later interval is longer by half, up to the caller's maximum."""
NOT_FOUND_GRACE: Final = 60.0
"""Seconds for which a 404 is tolerated: one public application saw it for up to 50 s after a start."""
_GROWTH: Final = 1.5
_MAX_STATUS_LENGTH: Final = 80
_MAX_UNKNOWN: Final = 10
"""Statuses for which a wait logs a warning, if the API reference does not name them."""


def _statuses(value: Collection[str]) -> frozenset[str]:
    if isinstance(value, str) or not all(isinstance(status, str) for status in value):
        raise ValueError(
            f"final_statuses must be a collection of strings, such as {{'CANCELLED'}}, got {excerpt(value)}"
        )
    return frozenset(value)


@frozen
class WaitOptions:
    """How to wait for a run; invalid values are a `ValueError`.

    Attributes:
        timeout: seconds to wait in total; None for no limit.
        max_poll_interval: seconds between two polls at most.
        final_statuses: statuses with which a run is finished, beside ``COMPLETE`` and ``FAILED``.
        not_found_grace: seconds for which a 404 is tolerated.
    """

    timeout: float | None
    max_poll_interval: float
    final_statuses: Collection[str] = field(default=(), converter=_statuses)
    not_found_grace: float = NOT_FOUND_GRACE

    def __attrs_post_init__(self) -> None:
        if self.timeout is not None:
            check_seconds("timeout", self.timeout)
        check_seconds("max_poll_interval", self.max_poll_interval)

    def is_final(self, status: RunStatus) -> bool:
        """Return whether a run with this status is finished."""
        return status.is_final or status in self.final_statuses


async def wait_for_run(
    get: Callable[[str, str], Awaitable[Run]], workflow_id: str, run_id: str, options: WaitOptions
) -> Run:
    """Poll a run until it is finished, and return it.

    Raises:
        RunFailedError: it ended as ``FAILED``.
        RunTimeoutError: it was not finished after `WaitOptions.timeout` seconds.
        NotFoundError: it is unknown, beyond the first seconds.
        CopyAIError: it cannot be read, and trying again will not help.
    """
    waiting = _Waiting(get, workflow_id, run_id, options)
    deadline = asyncio.timeout(options.timeout)
    try:
        async with deadline:
            await waiting.poll_until_finished()
    except TimeoutError:
        # A time-out of the caller, or of a request, is not ours.
        if options.timeout is None or not deadline.expired():
            raise
    if waiting.finished is None:
        raise RunTimeoutError(workflow_id, run_id, options.timeout or 0.0, waiting.status)
    if waiting.finished.status == RunStatus.FAILED:
        raise RunFailedError(waiting.finished)
    return waiting.finished


@define
class _Waiting:
    """The state of one wait.

    Attributes:
        status: the latest status received.
        finished: the run, once it is finished.
    """

    get: Callable[[str, str], Awaitable[Run]]
    workflow_id: str
    run_id: str
    options: WaitOptions
    status: RunStatus | None = None
    finished: Run | None = None
    _started_at: float = field(factory=time.monotonic)
    _unknown: set[str] = field(factory=set[str])

    async def poll_until_finished(self) -> None:
        """Poll at growing intervals, and set `finished`."""
        interval = first_interval = min(FIRST_INTERVAL, self.options.max_poll_interval)
        await self._poll()
        while self.finished is None:
            await _sleep_about(interval)
            await self._poll()
            interval = min(interval * _GROWTH, self.options.max_poll_interval)
        if self.finished.status == RunStatus.COMPLETE and not self.finished.output:
            # The status may be visible before the output is.
            await _sleep_about(first_interval)
            await self._poll()

    async def _poll(self) -> None:
        """Read the run once; tolerate what may pass."""
        try:
            run = await self.get(self.workflow_id, self.run_id)
        except NotFoundError:
            if self.finished is None and time.monotonic() - self._started_at >= self.options.not_found_grace:
                raise
            return
        except CopyAIError as error:
            if self.finished is None and not error.retryable:
                raise
            logger.warning("polling run %s: %s; polling again", escape(self.run_id), error)
            return
        if run.status is None:
            return
        self.status = run.status
        if self.options.is_final(run.status):
            self.finished = run
        elif run.status not in RunStatus.__members__:
            self._warn_of(run.status)

    def _warn_of(self, status: RunStatus) -> None:
        """Log a status that the API reference does not name, once."""
        if status in self._unknown or len(self._unknown) == _MAX_UNKNOWN:
            return
        self._unknown.add(status)
        logger.warning(
            "run %s has the status %s, which the API reference does not name; waiting on. "
            "If it is final, pass it in final_statuses",
            escape(self.run_id),
            truncate(escape(status), _MAX_STATUS_LENGTH),
        )


async def _sleep_about(seconds: float) -> None:
    """Sleep with jitter, which only ever shortens: the caller's maximum is a promise."""
    await asyncio.sleep(seconds * random.uniform(0.75, 1.0))  # noqa: S311 (jitter is not a secret)
