"""When a request is sent again: `RetryPolicy`, and the ``Retry-After`` header."""

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
    """How often a request is retried, and how long to wait before each retry. The names are those of stamina.

    The wait before attempt n + 1 is ``min(wait_initial * 2 ** (n - 1), wait_max - wait_jitter)`` seconds plus a random
    part of `wait_jitter`, or longer if the server asks for that with ``Retry-After``. A wait never extends beyond
    `timeout`: the last error is raised at once instead.

    A 429 uses up the `timeout`, but not the `attempts`. It counts as an attempt if `timeout` is None, and it is raised
    at once if `attempts` is 1.

    Attributes:
        attempts: the maximum number of attempts, 1 or more; None for no limit.
        timeout: seconds after the start of the first attempt in which another may start; None for no limit.
        wait_initial: seconds before the second attempt.
        wait_max: the maximum wait in seconds, unless ``Retry-After`` asks for more.
        wait_jitter: the maximum seconds of the random part of a wait.

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
            name: what is retried, for the log.
            min_wait: returns the shortest wait in seconds before the next attempt.
            before_wait: called before each wait with the number of the attempt that failed, the seconds and the error.
        """
        started = time.monotonic()
        try:
            return await attempt(1)
        except CopyAIError as error:
            if not _is_safe_to_retry(error):
                raise
            first = error
        # Most requests succeed at once, and are spared the engine. It takes over from the error of the first attempt.
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
        """Return the seconds to wait after attempt number `attempt` failed: at least what ``Retry-After`` asks for."""
        jitter = min(self.wait_jitter, self.wait_max)
        # 2 ** 60 half seconds exceed any wait_max, and are still a float.
        growing = self.wait_initial * 2.0 ** min(attempt - 1, 60)
        wait = min(growing, self.wait_max - jitter) + random.uniform(0, jitter)  # noqa: S311 (not a secret)
        retry_after = error.retry_after if isinstance(error, APIStatusError) else None
        return wait if retry_after is None else max(wait, retry_after)

    def allows(self, seconds: float) -> bool:
        """Whether a wait of this length fits into `timeout`."""
        return self.timeout is None or seconds < self.timeout


@define
class _Retries:
    """The retries of one call: a tenacity engine keeps the state of the call that it serves."""

    policy: RetryPolicy
    name: str
    min_wait: Callable[[], float]
    before_wait: Callable[[int, float, CopyAIError], None]
    elapsed: float
    """Seconds that the first attempt took."""
    rate_limits: int = 0
    """Responses 429 that did not count as an attempt."""

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

    A fraction is accepted, which the RFC does not allow but some servers send; of several numbers, into which a gateway
    may join several headers, the largest counts. Anything else is None.
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
    """Return the error of the latest attempt; tenacity waits only after those that are `_is_safe_to_retry`."""
    return cast("CopyAIError", state.outcome and state.outcome.exception())


def _is_safe_to_retry(error: BaseException) -> bool:
    """Whether the request may succeed later, and was certainly not executed by the server."""
    return isinstance(error, CopyAIError) and error.retryable and not error.ambiguous
