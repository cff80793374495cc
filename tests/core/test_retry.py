"""The retry policy: its waits and bounds, and the reading of Retry-After."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from aiocopyai import APIConnectionError, CopyAIError, NotFoundError, RateLimitedError, RetryPolicy, ServerError
from aiocopyai._rate_limit import Gate
from aiocopyai._retry import parse_retry_after


AT_ONCE = RetryPolicy(wait_initial=0, wait_max=0)
SECONDS = st.floats(0, 1000)


def wait_of(policy: RetryPolicy, attempt: int, error: CopyAIError) -> float:
    state = tenacity.RetryCallState(tenacity.AsyncRetrying(), None, (), {})
    state.attempt_number = attempt
    state.set_exception((type(error), error, None))
    return policy._wait(state)


class Flaky:
    """Fails with the given errors, one an attempt, and then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.attempts: list[int] = []

    async def __call__(self, attempt: int) -> str:
        self.attempts.append(attempt)
        if self.errors:
            raise self.errors.pop(0)
        return "done"


async def test_transient_errors_are_retried(caplog: pytest.LogCaptureFixture) -> None:
    """Transient errors are retried up to success, each with one line in the log and one call to `on_retry`."""
    told: list[tuple[CopyAIError, float]] = []
    first, second = APIConnectionError("reset"), ServerError(503)
    flaky = Flaky(first, second)

    assert await AT_ONCE.call(flaky, lambda error, seconds: told.append((error, seconds))) == "done"
    assert flaky.attempts == [1, 2, 3]
    assert told == [(first, 0), (second, 0)]
    assert [record.getMessage()[:15] for record in caplog.records] == ["attempt 1 of 5:", "attempt 2 of 5:"]


async def test_the_last_error_is_raised() -> None:
    """After the last attempt the error itself comes out, not tenacity's."""
    flaky = Flaky(*(ServerError(500 + number) for number in range(9)))
    with pytest.raises(ServerError) as caught:
        await AT_ONCE.call(flaky)

    assert caught.value.status == 504
    assert flaky.attempts == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("error", [NotFoundError(404), KeyError("bug"), asyncio.CancelledError()])
async def test_other_errors_pass(error: Exception) -> None:
    """What is not transient, not ours, or a cancellation passes at once."""
    flaky = Flaky(error)
    with pytest.raises(type(error)):
        await AT_ONCE.call(flaky)

    assert flaky.attempts == [1]


async def test_no_wait_beyond_the_timeout() -> None:
    """A Retry-After that reaches beyond the policy's time is raised at once."""
    flaky = Flaky(RateLimitedError(429, retry_after=121.0))
    with pytest.raises(RateLimitedError) as caught:
        await RetryPolicy().call(flaky)

    assert caught.value.retry_after == 121.0
    assert flaky.attempts == [1]


async def test_without_bounds(caplog: pytest.LogCaptureFixture) -> None:
    """Without a number of attempts and a time-out it goes on for as long as it takes."""
    policy = RetryPolicy(attempts=None, timeout=None, wait_initial=0, wait_max=0)

    assert await policy.call(Flaky(*(ServerError(500) for _ in range(50)))) == "done"
    assert policy.allows(1e9)
    assert caplog.records[0].getMessage().startswith("attempt 1: HTTP 500")


async def test_concurrent_calls_do_not_disturb_each_other() -> None:
    """One policy serves many calls at once, each with its own count."""
    callers = [Flaky(*(ServerError(500) for _ in range(number))) for number in range(5)]
    await asyncio.gather(*(AT_ONCE.call(caller) for caller in callers))

    assert [len(caller.attempts) for caller in callers] == [1, 2, 3, 4, 5]


@given(st.integers(1, 5000), SECONDS, SECONDS, SECONDS)
def test_own_waits_stay_in_bounds(attempt: int, initial: float, most: float, jitter: float) -> None:
    """A wait of our own is never negative and never longer than `wait_max`."""
    policy = RetryPolicy(wait_initial=initial, wait_max=most, wait_jitter=jitter)

    assert 0 <= wait_of(policy, attempt, ServerError(500)) <= most * (1 + 1e-9)


def test_waits_grow() -> None:
    """Without jitter waits double up to their cap; with jitter they vary at the cap too."""
    plain = RetryPolicy(wait_jitter=0)

    assert [wait_of(plain, attempt, ServerError(500)) for attempt in (1, 2, 3, 9)] == [0.5, 1, 2, 30]
    assert len({wait_of(RetryPolicy(), 20, ServerError(500)) for _ in range(5)}) > 1


def test_retry_after_is_the_least() -> None:
    """What the server asks for is the least that is waited, also beyond `wait_max`."""
    assert wait_of(RetryPolicy(), 1, RateLimitedError(429, retry_after=60.0)) == 60
    assert wait_of(RetryPolicy(wait_jitter=0), 1, ServerError(503, retry_after=0.0)) == 0.5


@pytest.mark.parametrize(
    "arguments",
    [{"attempts": 0}, {"timeout": -1}, {"wait_initial": float("nan")}, {"wait_max": float("inf")}, {"timeout": "1"}],
)
def test_bad_policy(arguments: dict[str, float]) -> None:
    """A value out of range is refused by name."""
    with pytest.raises(ValueError, match=f"RetryPolicy.{next(iter(arguments))} must be at least"):
        RetryPolicy(**arguments)  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7),
        (" 0 ", 0),
        ("9" * 400, 365 * 86_400),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("²", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0),
        ("Wed, 99 Oct 99999999999 07:28:00 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    """Retry-After is seconds or a date; anything else is none."""
    assert parse_retry_after(value) == seconds


def test_retry_after_in_the_future() -> None:
    """A date to come is the seconds until then."""
    seconds = parse_retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True))

    assert seconds is not None
    assert 80 < seconds <= 90


async def test_gate_holds_everyone() -> None:
    """During a cool-down nothing passes; a shorter hold does not end a longer one."""
    gate = Gate(None)
    gate.hold(0.03)
    gate.hold(0.0)
    loop = asyncio.get_running_loop()
    began = loop.time()

    assert repr(gate) == "<Gate: cooling down>"

    await asyncio.gather(gate.pass_through(), gate.pass_through())

    assert loop.time() - began >= 0.029
    assert repr(gate) == "<Gate: open>"


@pytest.mark.parametrize("rate", [200.0, 1.5])
async def test_gate_keeps_the_rate(rate: float) -> None:
    """At most `max_rate` requests pass a second, a rate below one and a half included."""
    gate = Gate(rate)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await gate.pass_through()
    if rate > 100:
        for _ in range(4):
            await gate.pass_through()

        assert loop.time() - began >= 3.9 / rate
