"""Limit requests to `max_rate` and to the free connections; pause and slow down after a 429."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from contextlib import nullcontext
from typing import Final

from aiolimiter import AsyncLimiter


_START_PACE: Final = 20.0
"""The minimum of the assumed requests per second before the first 429."""
_MIN_PACE: Final = 0.5
"""The minimum pace in requests per second."""
_MAX_PACE: Final = 1000.0
"""The pace in requests per second above which there is no limit."""
_GROWTH: Final = 1.1
"""The growth of the pace per second without a 429: it doubles in about 7 s."""
_SLOW_GROWTH: Final = 1.01
"""The growth while the pace is between `_NEAR` and `_BEYOND` times the pace that caused the latest 429."""
_NEAR: Final = 0.75
_BEYOND: Final = 1.1


class RateLimiter:
    """Admits the requests of a session in order, one at a time; retries have priority.

    After a 429, all requests pause for as long as the server requests. Then they are admitted with jitter, at half the
    previous pace. The pace grows until the next 429, and grows more slowly near the pace that caused the last one.

    Requests also wait for a free connection here, because in aiohttp this wait would count towards the time-out.
    """

    def __init__(self, max_rate: float | None, connections: int = 0) -> None:
        # AsyncLimiter never admits a request if its rate is less than 1 per period.
        self._limiter = None if max_rate is None else AsyncLimiter(1, 1 / max_rate)
        self._connections = asyncio.Semaphore(connections) if connections else None
        self._first_attempts = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._sent: deque[float] = deque(maxlen=round(_MAX_PACE))
        self._next = 0.0  # the earliest time of the next request
        self._pace: float | None = None  # requests per second at `_resumed`
        self._too_fast = 0.0  # the latest pace that caused a 429; 0 if unknown
        self.slowdowns = 0  # the number of times that the pace was halved
        self._slowed = self._resumed = 0.0  # when the pace was last reduced, and when requests resumed after that

    def __repr__(self) -> str:
        pace = self._current_pace(time.monotonic())
        state = "not limited" if pace is None else f"{pace:.1f} requests per second"
        return f"<RateLimiter: {state}{', paused' if self.delay else ''}>"

    @property
    def delay(self) -> float:
        """Seconds until the next request may be sent, without the limit of `max_rate`."""
        return max(0.0, self._next - time.monotonic())

    async def acquire(self, *, is_retry: bool = False) -> float:
        """Wait until a request may be sent, and return the current time. Call `release` after the request."""
        # Retries skip this queue, so that new requests do not delay them.
        async with nullcontext() if is_retry else self._first_attempts:
            if self._connections is not None:
                await self._connections.acquire()
            try:
                async with self._turn:
                    return await self._wait_for_turn()
            except BaseException:
                self.release()
                raise

    def release(self) -> None:
        """Free the connection of an admitted request."""
        if self._connections is not None:
            self._connections.release()

    def slow_down(self, sent: float, pause: float) -> None:
        """Pause because of a 429, and halve the pace.

        The pace is halved only once for all requests that were sent at the same pace.

        Args:
            sent: the time when the rejected request was sent, as returned by `acquire`.
            pause: seconds in which no request is sent.
        """
        now = time.monotonic()
        pace = self._current_pace(now)
        if self._pace is None or pace is None or sent > self._slowed:
            recent = float(sum(at > now - 1 for at in self._sent))
            self._too_fast = pace or 0.0
            self._pace = max(_MIN_PACE, (pace or max(recent, _START_PACE)) / 2)
            self._slowed = now
            self.slowdowns += 1
        self._resumed = max(self._resumed, now + pause)
        self._next = max(self._next, self._resumed + random.uniform(0.5, 1.5) / self._pace)  # noqa: S311 (not a secret)

    async def _wait_for_turn(self) -> float:
        if self._limiter is not None:
            await self._limiter.acquire()
        while (delay := self.delay) > 0:  # noqa: ASYNC110 (the pause may have been extended)
            await asyncio.sleep(delay)
        now = time.monotonic()
        self._sent.append(now)
        if (pace := self._current_pace(now)) is not None:
            self._next = now + random.uniform(0.9, 1.1) / pace  # noqa: S311 (not a secret)
        return now

    def _current_pace(self, now: float) -> float | None:
        """Return the current pace, which grows after the last 429; None if it is no longer limited."""
        if self._pace is None:
            return None
        pace, seconds = self._pace, max(0.0, now - self._resumed)
        for limit, growth in (
            (_NEAR * self._too_fast, _GROWTH),
            (_BEYOND * self._too_fast, _SLOW_GROWTH),
            (_MAX_PACE, _GROWTH),
        ):
            if pace < limit:
                needed = math.log(limit / pace, growth)
                if seconds < needed:
                    return float(pace * growth**seconds)
                pace, seconds = limit, seconds - needed
        return None
