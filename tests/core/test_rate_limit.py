"""Tests of the rate limiter: `max_rate`, the pause and the pace after a 429, and the order of requests."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest
from aiohttp import web
from attrs import define, field

from aiocopyai import CopyAISession, RateLimitedError, RetryPolicy
from aiocopyai._rate_limit import RateLimiter
from tests.support.clock import Clock
from tests.support.proxying import serving


KEY = "a-secret-key-0123456789"


@pytest.fixture(name="clock")
def _clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the rate limiter."""
    return Clock(monkeypatch, "aiocopyai._rate_limit")


async def test_nothing_is_limited_at_first(clock: Clock) -> None:
    """Without `max_rate`, requests are sent at once before the first 429."""
    limiter = RateLimiter(None)
    for _ in range(500):
        await limiter.acquire()

    assert clock.sleeps == []
    assert repr(limiter) == "<RateLimiter: not limited>"


async def test_a_429_pauses_all_requests(clock: Clock) -> None:
    """During a pause nothing is sent, and a shorter pause does not end a longer one."""
    limiter = RateLimiter(None)
    sent = await limiter.acquire()
    limiter.slow_down(sent, 30)
    limiter.slow_down(sent, 0)

    assert repr(limiter) == "<RateLimiter: 10.0 requests per second, paused>"
    assert await limiter.acquire() >= sent + 30
    assert clock.now < sent + 31


async def test_requests_are_released_one_at_a_time(clock: Clock) -> None:
    """After a pause, the waiting requests are released one by one at the pace, in the order of their calls."""
    limiter = RateLimiter(None)
    limiter.slow_down(clock.now, 60)
    released: list[tuple[int, float]] = []

    async def request(number: int) -> None:
        released.append((number, await limiter.acquire()))

    await asyncio.gather(*map(request, range(8)))
    times = [at for _, at in released]

    assert [number for number, _ in released] == list(range(8))
    assert all(0.08 < later - earlier < 0.12 for earlier, later in itertools.pairwise(times))


@pytest.mark.usefixtures("clock")
async def test_the_pace_is_halved_once_for_requests_sent_together() -> None:
    """If many requests that were sent together get a 429, the pace is halved once."""
    limiter = RateLimiter(None)
    sent = [await limiter.acquire() for _ in range(60)]
    for at in sent:
        limiter.slow_down(at, 0.0)

    assert repr(limiter) == "<RateLimiter: 30.0 requests per second, paused>"

    limiter.slow_down(await limiter.acquire(), 0.0)

    assert "15." in repr(limiter)


async def test_the_pace_has_a_minimum(clock: Clock) -> None:
    """After any number of 429s, the pace is at least one request in two seconds."""
    limiter = RateLimiter(None)
    for second in range(1, 50):
        limiter.slow_down(clock.now + second, 0.0)

    assert repr(limiter).startswith("<RateLimiter: 0.5 requests per second")


async def test_the_pace_grows_again(clock: Clock) -> None:
    """Without further 429s, the pace grows until it is unlimited."""
    limiter = RateLimiter(None)
    limiter.slow_down(await limiter.acquire(), 0.0)

    assert [round(limiter._current_pace(clock.now + seconds) or 0) for seconds in (0, 7, 14)] == [10, 19, 38]
    clock.now += 1e6
    assert repr(limiter) == "<RateLimiter: not limited>"


async def test_the_pace_grows_slowly_near_the_last_429(clock: Clock) -> None:
    """The pace grows slowly near the pace of the last 429, and quickly below and above it."""
    limiter = RateLimiter(None)
    for _ in range(2):
        limiter.slow_down(await limiter.acquire(), 0.0)  # at 20, and at about 10 requests per second
    pace = [limiter._current_pace(clock.now + seconds) or 0.0 for seconds in range(60)]

    assert pace[0] == pytest.approx(5, rel=0.1)
    grown = [later / earlier for earlier, later in itertools.pairwise(pace)]
    assert (round(grown[0], 2), round(grown[-1], 2)) == (1.1, 1.1)
    slow = [earlier for earlier, growth in zip(pace, grown, strict=False) if growth < 1.02]
    assert slow[0] == pytest.approx(7.5, rel=0.15)
    assert slow[-1] == pytest.approx(11, rel=0.15)


@pytest.mark.usefixtures("clock")
async def test_retries_go_before_new_requests() -> None:
    """A retried request is sent before new requests."""
    limiter = RateLimiter(None)
    limiter.slow_down(await limiter.acquire(), 60)
    order: list[str] = []

    async def request(name: str) -> None:
        await limiter.acquire(is_retry=name == "retry")
        order.append(name)

    await asyncio.gather(*(request("new") for _ in range(10)), request("retry"))

    assert order.index("retry") <= 1


@pytest.mark.parametrize("waits_for", ["pause", "connection"])
async def test_a_cancelled_request_releases_its_turn(waits_for: str) -> None:
    """A request that is cancelled while it waits does not delay other requests, and does not use a connection."""
    limiter = RateLimiter(None, 1)
    sent = await limiter.acquire()
    if waits_for == "pause":
        limiter.release()
        limiter.slow_down(sent, 60)
    waiting = [asyncio.ensure_future(limiter.acquire()) for _ in range(3)]
    for _ in range(3):
        await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    if waits_for == "pause":
        limiter._next = sent  # the pause has ended
    else:
        limiter.release()

    assert all(task.cancelled() for task in waiting)
    async with asyncio.timeout(30):
        await limiter.acquire()


async def test_max_rate() -> None:
    """`max_rate` is the maximum number of requests per second."""
    limiter = RateLimiter(200)
    started = time.monotonic()
    await asyncio.gather(*(limiter.acquire() for _ in range(5)))

    assert time.monotonic() - started >= 3.9 / 200


async def test_a_max_rate_below_1() -> None:
    """With a rate of less than one request per second, the first request is sent at once."""
    async with asyncio.timeout(1):
        await RateLimiter(0.5).acquire()


@define
class TokenBucket:
    """A server that accepts a number of requests per second, with a burst, and responds to others with a 429."""

    rate: float
    burst: float
    retry_after: str
    tokens: float = field(init=False)
    filled: float = field(factory=time.monotonic)
    admitted: int = 0
    rejected: int = 0
    url: str = ""

    def __attrs_post_init__(self) -> None:
        self.tokens = self.burst

    async def handle(self, http: web.BaseRequest) -> web.Response:
        """Respond to one request."""
        now = time.monotonic()
        self.tokens = min(self.burst, self.tokens + (now - self.filled) * self.rate)
        self.filled = now
        if self.tokens < 1:
            self.rejected += 1
            return web.Response(status=429, headers={"Retry-After": self.retry_after})
        self.tokens -= 1
        self.admitted += 1
        if http.method == "POST":
            return web.json_response({"status": "success", "data": {"id": f"WRUN-{self.admitted}"}})
        return web.json_response({"status": "success", "data": {"total": 0, "data": []}})


@pytest.mark.parametrize("retry_after", ["0.05", "0"])
async def test_run_many_starts_every_row_despite_a_rate_limit(retry_after: str) -> None:
    """`run_many` starts every row on a server with a low rate limit, with few rejected requests."""
    bucket = TokenBucket(rate=20, burst=2, retry_after=retry_after)
    policy = RetryPolicy(attempts=2, timeout=30, wait_initial=0.01, wait_max=0.2, wait_jitter=0.01)
    async with serving(bucket.handle) as url, CopyAISession(KEY, base_url=url, retry=policy) as session:
        async with asyncio.timeout(30):
            results = [result async for result in session.run_many("W", [{}] * 16, wait=False)]

    assert [result.error for result in results] == [None] * 16
    assert bucket.admitted == 16
    assert bucket.rejected < 16


async def test_one_attempt_is_one_request() -> None:
    """With `attempts=1`, a 429 is raised at once."""
    bucket = TokenBucket(rate=0, burst=0, retry_after="0")
    async with (
        serving(bucket.handle) as url,
        CopyAISession(KEY, base_url=url, retry=RetryPolicy(attempts=1)) as session,
    ):
        with pytest.raises(RateLimitedError):
            await session.count_runs("W")

    assert bucket.rejected == 1


async def test_retries_slow_down_with_retry_after_0() -> None:
    """A server that always sends `Retry-After: 0` receives few requests, even with a policy without waits."""
    bucket = TokenBucket(rate=0, burst=0, retry_after="0")
    policy = RetryPolicy(timeout=0.2, wait_initial=0, wait_max=0)
    async with serving(bucket.handle) as url, CopyAISession(KEY, base_url=url, retry=policy) as session:
        errors = await asyncio.gather(*(session.count_runs("W") for _ in range(4)), return_exceptions=True)

    assert [type(error) for error in errors] == [RateLimitedError] * 4
    assert bucket.rejected <= 16
