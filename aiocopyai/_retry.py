"""When a request is sent again: the policy, and the reading of ``Retry-After``."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import tenacity
from attrs import Attribute, field, frozen

from aiocopyai.errors import APIStatusError, CopyAIError


T = TypeVar("T")

logger = logging.getLogger("aiocopyai")


def _at_least(minimum: float) -> Callable[[object, Attribute[T], T], None]:
    def check(_: object, attribute: Attribute[T], value: T) -> None:
        fits = isinstance(value, int | float) and math.isfinite(value) and value >= minimum
        if value is not None and not fits:
            msg = f"RetryPolicy.{attribute.name} must be at least {minimum}, not {value!r}"
            raise ValueError(msg)

    return check


@frozen
class RetryPolicy:
    """How often and how patiently a request is sent again; the field names are stamina's.

    Before attempt n + 1 it waits ``min(wait_initial * 2 ** (n - 1), wait_max - wait_jitter)`` seconds and a random part
    of `wait_jitter` on top, or longer where the server asks for that with ``Retry-After``. No wait reaches beyond
    `timeout`: the last error is raised at once instead.

    Raises:
        ValueError: a negative or infinite value, or fewer than one attempt.
    """

    attempts: int | None = field(default=5, validator=_at_least(1))
    """How often a request is sent at the most; None for as often as `timeout` allows."""
    timeout: float | None = field(default=120.0, validator=_at_least(0))
    """Seconds from the first attempt after which no other is begun; None for no such limit."""
    wait_initial: float = field(default=0.5, validator=_at_least(0))
    """Seconds before the second attempt."""
    wait_max: float = field(default=30.0, validator=_at_least(0))
    """Seconds that a wait of our own takes at the most."""
    wait_jitter: float = field(default=1.0, validator=_at_least(0))
    """Seconds of which a random part is added to each wait, at its cap too."""

    async def call(
        self,
        attempt: Callable[[int], Awaitable[T]],
        on_retry: Callable[[CopyAIError, float], None] | None = None,
    ) -> T:
        """Await ``attempt(1)``, and on a transient error ``attempt(2)`` and so on; raise the last error.

        `on_retry` is told each error and the seconds until the next attempt.
        """

        def before_sleep(state: tenacity.RetryCallState) -> None:
            error, seconds = _error(state), state.upcoming_sleep
            if error is None:
                return
            limit = "" if self.attempts is None else f" of {self.attempts}"
            logger.warning("attempt %d%s: %s; again in %.1f s", state.attempt_number, limit, error, seconds)
            if on_retry is not None:
                on_retry(error, seconds)

        # One per call: tenacity's retrying object holds the state of the call that it is in.
        retrying = tenacity.AsyncRetrying(
            stop=self._stop(),
            wait=self._wait,
            retry=tenacity.retry_if_exception(_is_worth_another),
            before_sleep=before_sleep,
            reraise=True,
        )
        async for state in retrying:
            with state:
                return await attempt(state.retry_state.attempt_number)
        raise AssertionError  # pragma: no cover (tenacity ends by returning or raising)

    def wait_after(self, attempt: int) -> float:
        """Draw the seconds to wait after so many attempts, from 1 on, where the server asks for no longer."""
        jitter = min(self.wait_jitter, self.wait_max)
        # 2 ** 60 half seconds outlive any wait_max, and stay a float.
        growing = self.wait_initial * 2.0 ** min(attempt - 1, 60)
        return min(growing, self.wait_max - jitter) + random.uniform(0, jitter)  # noqa: S311 (jitter keeps no secret)

    def allows(self, seconds: float) -> bool:
        """Whether a wait of so many seconds fits into `timeout`."""
        return self.timeout is None or seconds < self.timeout

    def _stop(self) -> tenacity.stop.stop_base:
        stop: tenacity.stop.stop_base = tenacity.stop_never
        if self.attempts is not None:
            stop = tenacity.stop_after_attempt(self.attempts)
        if self.timeout is not None:
            stop = tenacity.stop_any(stop, tenacity.stop_before_delay(self.timeout))
        return stop

    def _wait(self, state: tenacity.RetryCallState) -> float:
        own = self.wait_after(state.attempt_number)
        error = _error(state)
        asked = error.retry_after if isinstance(error, APIStatusError) else None
        return own if asked is None else max(own, asked)


def parse_retry_after(value: str | None) -> float | None:
    """Read a ``Retry-After`` header: seconds, or an HTTP date; None for anything else (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), _A_YEAR)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - datetime.now(UTC)).total_seconds()), _A_YEAR)


_A_YEAR = 365 * 86_400.0


def _error(state: tenacity.RetryCallState) -> CopyAIError | None:
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, CopyAIError) else None


def _is_worth_another(error: BaseException) -> bool:
    """Whether to try again: what may have been done already is never asked for twice."""
    return isinstance(error, CopyAIError) and error.retryable and not error.ambiguous
