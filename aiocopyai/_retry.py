"""Retries of requests: `RetryPolicy`, and the ``Retry-After`` header."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar, cast

import tenacity
from attrs import define, frozen

from aiocopyai._validation import check_integer, check_positive
from aiocopyai.errors import APIStatusError, CopyAIError, RateLimitedError


T = TypeVar("T")

logger = logging.getLogger("aiocopyai")

_ONE_YEAR: Final = 365 * 86_400.0
_SECONDS: Final = re.compile(r"\d{1,20}(\.\d{0,20})?", re.ASCII)


@frozen
class RetryPolicy:
    """How often a request is retried, and how long to wait before each retry. The arguments are named as in stamina.

    The wait before attempt n + 1 is ``min(wait_initial * 2 ** (n - 1), wait_max - wait_jitter)`` seconds plus a random
    part of `wait_jitter`, or longer if the server requests it with ``Retry-After``. If a wait would exceed `timeout`,
    the last error is raised immediately.

    A 429 does not count as an attempt, unless `timeout` is None. If `attempts` is 1, it is raised immediately.

    Attributes:
        attempts: the maximum number of attempts, 1 or more; None for no limit.
        timeout: seconds after the start of the first attempt until which another may start; None for no limit.
        wait_initial: seconds before the second attempt.
        wait_max: the maximum wait in seconds, unless ``Retry-After`` is longer.
        wait_jitter: the maximum random part of a wait, in seconds.

    Raises:
        ValueError: a value is negative or infinite, or `attempts` is less than 1.
    """

    attempts: int | None = 5
    timeout: float | None = 120.0
    wait_initial: float = 0.5
    wait_max: float = 30.0
    wait_jitter: float = 1.0

    def __attrs_post_init__(self) -> None:
        if self.attempts is not None:
            check_integer("RetryPolicy.attempts", self.attempts, 1)
        if self.timeout is not None:
            check_positive("RetryPolicy.timeout", self.timeout, zero=True)
        check_positive("RetryPolicy.wait_initial", self.wait_initial, zero=True)
        check_positive("RetryPolicy.wait_max", self.wait_max, zero=True)
        check_positive("RetryPolicy.wait_jitter", self.wait_jitter, zero=True)

    async def call(
        self,
        attempt: Callable[[int], Awaitable[T]],
        name: str = "a request",
        min_wait: Callable[[], float] = lambda: 0.0,
        before_wait: Callable[[int, float, CopyAIError], None] = lambda _attempt, _wait, _error: None,
    ) -> T:
        """Await ``attempt(1)``, after a retryable error ``attempt(2)`` and so on; raise the last error.

        Args:
            attempt: sends the request; its argument is the number of the attempt.
            name: the request in log messages.
            min_wait: returns the shortest wait in seconds before the next attempt.
            before_wait: called before each wait with the number of the failed attempt, the seconds and the error.
        """
        started = time.monotonic()
        try:
            return await attempt(1)
        except CopyAIError as error:
            if not _is_safe_to_retry(error):
                raise
            first = error
        # For speed, tenacity is only used if the first attempt fails. It then starts with the error of this attempt.
        retries = _Retries(self, name, min_wait, before_wait, time.monotonic() - started)
        try:
            async for state in retries.engine():
                with state:
                    if state.retry_state.attempt_number == 1:
                        raise first
                    return await attempt(state.retry_state.attempt_number)
        finally:
            del first  # its traceback refers to this frame
        raise AssertionError  # pragma: no cover (tenacity ends by returning or raising)

    def wait_after(self, attempt: int, error: CopyAIError | None = None) -> float:
        """Return the seconds to wait after a failed attempt, at least those of ``Retry-After``."""
        jitter = min(self.wait_jitter, self.wait_max)
        # The maximum exponent avoids an overflow.
        growing = self.wait_initial * 2.0 ** min(attempt - 1, 60)
        wait = min(growing, self.wait_max - jitter) + random.uniform(0, jitter)  # noqa: S311 (not a secret)
        retry_after = error.retry_after if isinstance(error, APIStatusError) else None
        return wait if retry_after is None else max(wait, retry_after)

    def allows(self, seconds: float) -> bool:
        """Return whether a wait of this length is within `timeout`."""
        return self.timeout is None or seconds < self.timeout


@define
class _Retries:
    """The state of the retries of one call."""

    policy: RetryPolicy
    name: str
    min_wait: Callable[[], float]
    before_wait: Callable[[int, float, CopyAIError], None]
    elapsed: float
    """The duration of the first attempt in seconds."""
    rate_limits: int = 0
    """The number of 429 responses that did not count as an attempt."""

    def engine(self) -> tenacity.AsyncRetrying:
        return tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_is_safe_to_retry),
            wait=self.wait,
            stop=self.stop,
            before_sleep=self.log,
            reraise=True,
        )

    def wait(self, state: tenacity.RetryCallState) -> float:
        error = _error(state)
        if isinstance(error, RateLimitedError) and self.policy.timeout is not None:
            self.rate_limits += 1
            number = self.rate_limits
        else:
            number = state.attempt_number - self.rate_limits
        return max(self.policy.wait_after(number, error), self.min_wait())

    def stop(self, state: tenacity.RetryCallState) -> bool:
        attempts, timeout = self.policy.attempts, self.policy.timeout
        if attempts is not None and (attempts == 1 or state.attempt_number - self.rate_limits >= attempts):
            return True
        elapsed = self.elapsed + (state.seconds_since_start or 0.0)
        return timeout is not None and elapsed + state.upcoming_sleep >= timeout

    def log(self, state: tenacity.RetryCallState) -> None:
        error = _error(state)
        self.before_wait(state.attempt_number, state.upcoming_sleep, error)
        if isinstance(error, RateLimitedError) and self.rate_limits:
            attempt = "not counted as an attempt"
        else:
            limit = "" if self.policy.attempts is None else f" of {self.policy.attempts}"
            attempt = f"attempt {state.attempt_number - self.rate_limits}{limit}"
        logger.warning("Retrying %s in %.1f s (%s): %s", self.name, state.upcoming_sleep, attempt, error.summary)


def parse_retry_after(value: str | None) -> float | None:
    """Return the seconds of a ``Retry-After`` header, a number or an HTTP date (RFC 9110, 10.2.3).

    Fractions are accepted: the RFC does not allow them, but some servers send them. If a gateway has joined several
    headers, the largest number is returned. The result is None for any other value.
    """
    if value is None:
        return None
    text = value.strip()
    numbers = [number.strip() for number in text.split(",")]
    if all(map(_SECONDS.fullmatch, numbers)):
        return min(max(map(float, numbers)), _ONE_YEAR)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return min(max(0.0, (date - datetime.now(UTC)).total_seconds()), _ONE_YEAR)


def _error(state: tenacity.RetryCallState) -> CopyAIError:
    """Return the error of the latest attempt, for which `_is_safe_to_retry` is true."""
    return cast("CopyAIError", state.outcome and state.outcome.exception())


def _is_safe_to_retry(error: BaseException) -> bool:
    """Return whether a request may succeed later, and was certainly not executed by the server."""
    return isinstance(error, CopyAIError) and error.retryable and not error.ambiguous
