"""Tests of the retry policy: its waits and limits, the count of attempts, and Retry-After."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import (
    APIConnectionError,
    InvalidResponseError,
    NotFoundError,
    RateLimitedError,
    RequestInfo,
    RetryPolicy,
    ServerError,
)
from aiocopyai._retry import parse_retry_after
from tests.conftest import AT_ONCE


SECONDS = st.floats(0, 1000)
REQUEST = RequestInfo("GET", "https://api.copy.ai/api/workflow/W/run")


class Flaky:
    """A function that fails with the given errors, one per attempt, and then succeeds."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.attempts: list[int] = []

    async def __call__(self, attempt: int) -> str:
        self.attempts.append(attempt)
        if self.errors:
            raise self.errors.pop(0)
        return "done"


async def test_retryable_errors_are_retried(caplog: pytest.LogCaptureFixture) -> None:
    """Retryable errors are retried until success. Each retry is a log line with the request, wait and reason."""
    policy = RetryPolicy(attempts=5, wait_initial=0.01, wait_jitter=0)
    reset = APIConnectionError("ClientOSError: Connection reset by peer", REQUEST)
    flaky = Flaky(reset, ServerError(503, request=REQUEST))

    assert await policy.call(flaky, "GET /workflow/W/run") == "done"
    assert flaky.attempts == [1, 2, 3]
    assert [record.getMessage() for record in caplog.records] == [
        "Retrying GET /workflow/W/run in 0.0 s (attempt 1 of 5): ClientOSError: Connection reset by peer",
        "Retrying GET /workflow/W/run in 0.0 s (attempt 2 of 5): HTTP 503",
    ]


async def test_the_last_error_is_raised() -> None:
    """After the last attempt, its error is raised, not tenacity's."""
    flaky = Flaky(*(ServerError(500 + number) for number in range(9)))
    with pytest.raises(ServerError) as caught:
        await AT_ONCE.call(flaky)

    assert caught.value.status == 504
    assert flaky.attempts == [1, 2, 3, 4, 5]
    assert caught.value.__context__ is None


@pytest.mark.parametrize("error", [NotFoundError(404), KeyError("bug"), asyncio.CancelledError()], ids=repr)
@pytest.mark.parametrize("before", [0, 1])
async def test_other_errors_are_raised_at_once(error: BaseException, before: int) -> None:
    """A cancellation, or an error that is not retryable, is raised at once, even after a retry."""
    flaky = Flaky(*[ServerError(500)] * before, error)
    with pytest.raises(type(error)):
        await AT_ONCE.call(flaky)

    assert len(flaky.attempts) == before + 1


async def test_an_ambiguous_error_is_not_retried() -> None:
    """A request that the server may have executed is not sent again."""
    error = ServerError(503)
    error.ambiguous = True
    flaky = Flaky(error)
    with pytest.raises(ServerError):
        await AT_ONCE.call(flaky)

    assert flaky.attempts == [1]


async def test_a_wait_beyond_the_timeout_is_an_error() -> None:
    """A Retry-After beyond the policy's time-out is raised at once."""
    flaky = Flaky(RateLimitedError(429, retry_after=121.0))
    with pytest.raises(RateLimitedError) as caught:
        await RetryPolicy().call(flaky)

    assert caught.value.retry_after == 121.0
    assert flaky.attempts == [1]


async def test_the_first_attempt_counts_against_the_timeout() -> None:
    """The time-out starts with the first attempt, not with its failure."""
    attempts: list[int] = []

    async def slow(attempt: int) -> str:
        attempts.append(attempt)
        await asyncio.sleep(0.03)
        raise ServerError(503)

    with pytest.raises(ServerError):
        await RetryPolicy(attempts=None, timeout=0.02, wait_initial=0, wait_max=0).call(slow)

    assert attempts == [1]


async def test_without_limits(caplog: pytest.LogCaptureFixture) -> None:
    """Without a limit of attempts and of time, a request is retried until it succeeds."""
    policy = RetryPolicy(attempts=None, timeout=None, wait_initial=0, wait_max=0)

    assert await policy.call(Flaky(*(ServerError(500) for _ in range(50))), "GET /webhook") == "done"
    assert policy.allows(1e9)
    assert caplog.records[0].getMessage() == "Retrying GET /webhook in 0.0 s (attempt 1): HTTP 500"


async def test_a_429_is_not_counted_as_an_attempt(caplog: pytest.LogCaptureFixture) -> None:
    """429s do not count as attempts, so all attempts remain for other errors."""
    errors = [ServerError(503), *(RateLimitedError(429) for _ in range(30)), ServerError(503)]
    flaky = Flaky(*errors)

    assert await RetryPolicy(attempts=3, wait_initial=0, wait_max=0).call(flaky, "GET /webhook") == "done"
    assert len(flaky.attempts) == 33
    assert [record.getMessage() for record in caplog.records][::31] == [
        "Retrying GET /webhook in 0.0 s (attempt 1 of 3): HTTP 503",
        "Retrying GET /webhook in 0.0 s (attempt 2 of 3): HTTP 503",
    ]
    assert caplog.records[1].getMessage() == "Retrying GET /webhook in 0.0 s (not counted as an attempt): HTTP 429"

    flaky = Flaky(RateLimitedError(429), *(ServerError(503) for _ in range(9)))
    with pytest.raises(ServerError):
        await RetryPolicy(attempts=3, wait_initial=0, wait_max=0).call(flaky)
    assert len(flaky.attempts) == 4


@pytest.mark.parametrize(
    ("policy", "attempts"),
    [(RetryPolicy(attempts=1), 1), (RetryPolicy(attempts=3, timeout=None, wait_initial=0, wait_max=0), 3)],
    ids=["one attempt", "no time-out"],
)
async def test_a_429_counts_as_an_attempt(policy: RetryPolicy, attempts: int) -> None:
    """With one attempt, a 429 is raised at once. Without a time-out, it counts as an attempt."""
    flaky = Flaky(*(RateLimitedError(429) for _ in range(9)))
    with pytest.raises(RateLimitedError):
        await policy.call(flaky)

    assert len(flaky.attempts) == attempts


async def test_a_429_uses_the_time() -> None:
    """If each response is a 429, the error is raised at the end of the policy's time-out."""
    flaky = Flaky(*(RateLimitedError(429, retry_after=0.01) for _ in range(1_000)))
    with pytest.raises(RateLimitedError):
        await RetryPolicy(timeout=0.05, wait_initial=0, wait_max=0).call(flaky)

    assert 2 <= len(flaky.attempts) <= 5


async def test_concurrent_calls_are_independent() -> None:
    """One policy serves many calls at the same time, each with its own count."""
    callers = [Flaky(*(ServerError(500) for _ in range(number))) for number in range(5)]
    await asyncio.gather(*(AT_ONCE.call(caller) for caller in callers))

    assert [len(caller.attempts) for caller in callers] == [1, 2, 3, 4, 5]


@given(st.integers(1, 5000), SECONDS, SECONDS, SECONDS)
def test_waits_are_bounded(attempt: int, initial: float, longest: float, jitter: float) -> None:
    """A wait without Retry-After is never negative and never longer than `wait_max`."""
    policy = RetryPolicy(wait_initial=initial, wait_max=longest, wait_jitter=jitter)

    assert 0 <= policy.wait_after(attempt, ServerError(500)) <= longest * (1 + 1e-9)


def test_waits_grow() -> None:
    """Without jitter, waits double up to `wait_max`. With jitter, they also differ at `wait_max`."""
    plain = RetryPolicy(wait_jitter=0)

    assert [plain.wait_after(attempt) for attempt in (1, 2, 3, 9)] == [0.5, 1, 2, 30]
    assert len({RetryPolicy().wait_after(20) for _ in range(5)}) > 1


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_a_minimum(status: int) -> None:
    """The wait is at least the server's Retry-After, for any status, even beyond `wait_max`."""
    error = RateLimitedError if status == 429 else ServerError

    assert RetryPolicy().wait_after(1, error(status, retry_after=60.0)) == 60
    assert RetryPolicy(wait_jitter=0, wait_initial=0.2).wait_after(1, error(status, retry_after=0.5)) == 0.5
    assert RetryPolicy(wait_jitter=0).wait_after(1, error(status, retry_after=0.0)) == 0.5
    assert RetryPolicy(wait_jitter=0).wait_after(1, InvalidResponseError("not JSON")) == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attempts": 0}, "RetryPolicy.attempts must be at least 1, got 0"),
        ({"attempts": 1.5}, "RetryPolicy.attempts must be an integer, got 1.5"),
        ({"timeout": -1}, "RetryPolicy.timeout must be a number of seconds, 0 or more, got -1"),
        ({"timeout": "1"}, "RetryPolicy.timeout must be a number of seconds, 0 or more, got '1'"),
        ({"wait_initial": float("nan")}, "RetryPolicy.wait_initial must be a number"),
        ({"wait_max": float("inf")}, "RetryPolicy.wait_max must be a number"),
        ({"wait_jitter": None}, "RetryPolicy.wait_jitter must be a number"),
    ],
)
def test_an_invalid_policy(arguments: dict[str, float], message: str) -> None:
    """An invalid value is rejected, and the error names the field, the value and what is accepted."""
    with pytest.raises(ValueError, match=message):
        RetryPolicy(**arguments)  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7),
        (" 0 ", 0),
        ("0.5", 0.5),
        ("1.", 1),
        ("1, 2.5", 2.5),
        ("1,,2", None),
        ("9" * 20, 365 * 86_400),
        ("9" * 400, None),
        ("-1", None),
        (".5", None),
        ("1e3", None),
        ("nan", None),
        ("soon", None),
        ("²", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0),
        ("Wed, 99 Oct 99999999999 07:28:00 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    """Retry-After may be seconds, with fractions, or a date, and may have several values. Other values are ignored."""
    assert parse_retry_after(value) == seconds


def test_retry_after_in_the_future() -> None:
    """A future date is the number of seconds until then."""
    seconds = parse_retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True))

    assert seconds is not None
    assert 80 < seconds <= 90
