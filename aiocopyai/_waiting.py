"""Poll a run at growing intervals until it is finished, or until a time-out."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from attrs import define, field, frozen

from aiocopyai._text import escape, excerpt, truncate
from aiocopyai._validation import check_positive
from aiocopyai.errors import (
    CopyAIError,
    InvalidResponseError,
    NotFoundError,
    RunFailedError,
    RunTimeoutError,
    is_gateway_page,
)
from aiocopyai.models import Run, RunStatus


logger = logging.getLogger("aiocopyai")

FIRST_INTERVAL: Final = 1.0
"""Seconds between the first two polls. Each later interval is 1.5 times as long, up to the caller's maximum."""
NOT_FOUND_GRACE: Final = 60.0
"""Seconds for which a 404 is tolerated: a public application received it for up to 50 s after a start."""
_GROWTH: Final = 1.5
_MAX_STATUS_LENGTH: Final = 80
_MAX_STATUS_WARNINGS: Final = 10
"""The maximum number of warnings about undocumented statuses in one wait."""
_MAX_INVALID: Final = 2
"""The number of consecutive responses to tolerate that are not the documented JSON."""
_PROGRESS: Final = {RunStatus.NEW: 0, RunStatus.WAITING: 1, RunStatus.COMPLETE: 3, RunStatus.FAILED: 3}
"""The progress of a run by its status; 2 for any other status."""


def _final_statuses(value: Collection[str]) -> frozenset[str]:
    is_collection = isinstance(value, Collection) and not isinstance(value, str)
    if not is_collection or not all(isinstance(status, str) for status in value):
        raise ValueError(
            f"final_statuses must be a collection of strings, such as {{'CANCELLED'}}, got {excerpt(value)}"
        )
    return frozenset(status.upper() for status in value)


@frozen
class WaitOptions:
    """How to wait for a run.

    Attributes:
        timeout: seconds to wait in total; None for no limit.
        max_poll_interval: the maximum seconds between two polls.
        final_statuses: further final statuses, besides ``COMPLETE`` and ``FAILED``.
        not_found_grace: seconds for which a 404 is tolerated after the first poll, or after the run was last received.

    Raises:
        ValueError: a value is invalid.
    """

    timeout: float | None
    max_poll_interval: float
    final_statuses: Collection[str] = field(default=(), converter=_final_statuses)
    not_found_grace: float = NOT_FOUND_GRACE

    def __attrs_post_init__(self) -> None:
        if self.timeout is not None:
            check_positive("timeout", self.timeout)
        check_positive("max_poll_interval", self.max_poll_interval)

    @property
    def first_interval(self) -> float:
        """Seconds between the first two polls."""
        return min(FIRST_INTERVAL, self.max_poll_interval)

    def is_final(self, status: RunStatus) -> bool:
        """Return whether a run with this status is finished."""
        return status.is_final or status.upper() in self.final_statuses


async def wait_for_run(
    get: Callable[[str, str], Awaitable[Run]], workflow_id: str, run_id: str, options: WaitOptions
) -> Run:
    """Poll a run until it is finished, and return it.

    Raises:
        RunFailedError: the run ended with the status ``FAILED``.
        RunTimeoutError: the run was not finished after `WaitOptions.timeout` seconds.
        NotFoundError: the run was not found for `WaitOptions.not_found_grace` seconds.
        CopyAIError: the run cannot be read, and the error is not retryable.
    """
    poller = RunPoller(get, workflow_id, run_id, options)
    deadline = asyncio.timeout(options.timeout)
    try:
        async with deadline:
            while not poller.is_done:
                await asyncio.sleep(poller.due - time.monotonic())
                await poller.poll()
    except TimeoutError:
        if options.timeout is None or not deadline.expired():  # the time-out of the caller or of a request
            raise
    if poller.finished is None:
        raise RunTimeoutError(workflow_id, run_id, options.timeout or 0.0, poller.status) from poller.error
    if poller.finished.status == RunStatus.FAILED:
        raise RunFailedError(poller.finished)
    return poller.finished


@define
class RunPoller:
    """Polls one run at growing intervals, until it is finished.

    Attributes:
        status: the latest status; None if no response had one.
        error: the error of the latest poll; None if it succeeded.
        finished: the finished run; None until then.
        is_done: whether no more polls are needed.
        due: the time of the next poll, by the monotonic clock.
    """

    get: Callable[[str, str], Awaitable[Run]]
    workflow_id: str
    run_id: str
    options: WaitOptions
    status: RunStatus | None = None
    error: CopyAIError | None = None
    finished: Run | None = None
    is_done: bool = False
    due: float = field(factory=time.monotonic)
    _interval: float = field(init=False)
    _known_at: float | None = None  # when the run was last read, or if it never was, when it was first requested
    _latest: Run | None = None  # the run that `poll` last returned
    _logged_statuses: set[str] = field(factory=set[str])
    _invalid_responses: int = 0  # in a row

    def __attrs_post_init__(self) -> None:
        self._interval = self.options.first_interval

    async def poll(self) -> Run | None:
        """Read the run, and return it if it has changed; tolerate temporary errors.

        A run that is ``COMPLETE`` without output is read again before it is returned, as its output may be late.
        """
        is_second_read = self.finished is not None
        try:
            run = await self._read()
        finally:
            self._schedule()
        if run is not None and run.status is not None:
            self._record_status(run, run.status)
        if self.finished is not None:
            self.is_done = is_second_read or bool(self.finished.output) or self.finished.status != RunStatus.COMPLETE
            run = self.finished if self.is_done else None
            self._interval = self.options.first_interval
            self._schedule()
        if run is None or not self._has_changed(run):
            return None
        self._latest = run
        return run

    async def _read(self) -> Run | None:
        if self._known_at is None:
            self._known_at = time.monotonic()
        try:
            run = await self.get(self.workflow_id, self.run_id)
        except NotFoundError as error:
            self.error = error
            if self.finished is None and time.monotonic() - self._known_at >= self.options.not_found_grace:
                raise
            return None
        except CopyAIError as error:
            self.error = error
            self._invalid_responses += isinstance(error, InvalidResponseError)
            is_odd = isinstance(error, InvalidResponseError) and self._invalid_responses <= _MAX_INVALID
            if self.finished is None and not (error.retryable or is_odd or is_gateway_page(error)):
                raise
            logger.warning("polling run %s: %s; polling again", escape(self.run_id), error)
            return None
        self._known_at, self._invalid_responses, self.error = time.monotonic(), 0, None
        return run

    def _record_status(self, run: Run, status: RunStatus) -> None:
        """Store a status, and log a warning once if it is undocumented."""
        self.status = status
        is_unknown = status not in RunStatus.__members__ and status not in self._logged_statuses
        if self.options.is_final(status):
            self.finished = run
        elif is_unknown and len(self._logged_statuses) < _MAX_STATUS_WARNINGS:
            self._logged_statuses.add(status)
            logger.warning(
                "run %s has the undocumented status %s, which is assumed not to be final",
                escape(self.run_id),
                truncate(escape(status), _MAX_STATUS_LENGTH),
            )

    def _has_changed(self, run: Run) -> bool:
        """Return whether a run differs from the last returned one."""
        latest = self._latest
        if latest is None:
            return True
        if progress(run.status) < progress(latest.status):  # from a replica that lags behind
            return False
        return (run.status, run.output, run.error, run.credits) != (
            latest.status, latest.output, latest.error, latest.credits
        )  # fmt: skip

    def _schedule(self) -> None:
        """Set the time of the next poll. The jitter only shortens the interval."""
        self.due = time.monotonic() + self._interval * random.uniform(0.75, 1.0)  # noqa: S311 (jitter is not a secret)
        self._interval = min(self._interval * _GROWTH, self.options.max_poll_interval)


def progress(status: RunStatus | None) -> int:
    """Return the progress of a run with this status, as a number for comparisons."""
    return -1 if status is None else _PROGRESS.get(status, 2)
