"""When a request may be sent: `max_rate`, a free connection, and the pause and the slower pace after a 429."""

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
"""Requests per second that are assumed before the first 429, if fewer were sent in the last second."""
_MIN_PACE: Final = 0.5
"""Requests per second below which the pace is not halved further."""
_MAX_PACE: Final = 1000.0
"""Requests per second at which the pace is no longer limited."""
_GROWTH: Final = 1.1
"""The factor by which the pace grows in each second without a 429: it doubles in about 7 s."""
_SLOW_GROWTH: Final = 1.01
"""The same while the pace is close to one that was too fast: between `_NEAR` and `_BEYOND` times as fast."""
_NEAR: Final = 0.75
_BEYOND: Final = 1.1


class RateLimiter:
    """Admits the requests of a session one by one, in order; those that are sent again go first.

    A 429 pauses all requests for as long as the server asks. Then they are released one by one, with jitter, at half
    the former pace. The pace grows until the next 429, and most slowly near the pace that caused the last one.

    Waiting for a free connection happens here and not in aiohttp, which would count it against the time-out.
    """

    def __init__(self, max_rate: float | None, connections: int = 0) -> None:
        # A limiter of less than one request per period would never admit any.
        self._limiter = None if max_rate is None else AsyncLimiter(1, 1 / max_rate)
        self._connections = asyncio.Semaphore(connections) if connections else None
        self._first_attempts = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._sent: deque[float] = deque(maxlen=round(_MAX_PACE))
        self._next = 0.0  # before this time no request is sent
        self._pace: float | None = None  # requests per second at `_resumed`
        self._too_fast = 0.0  # the latest pace that ended in a 429; 0 if that is not known
        self.slowdowns = 0  # how often the pace was halved
        self._slowed = self._resumed = 0.0  # when the pace was last reduced, and when requests resumed after that

    def __repr__(self) -> str:
        pace = self._current_pace(time.monotonic())
        state = "not limited" if pace is None else f"{pace:.1f} requests per second"
        return f"<RateLimiter: {state}{', paused' if self.delay else ''}>"

    @property
    def delay(self) -> float:
        """Seconds until the next request may be sent, apart from `max_rate`."""
        return max(0.0, self._next - time.monotonic())

    async def acquire(self, *, is_retry: bool = False) -> float:
        """Wait until a request may be sent, and return the time at which it was. Call `release` after it."""
        # Requests that were sent before wait in a separate queue, so that new ones do not delay them.
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
        """Free the connection of a request that was acquired."""
        if self._connections is not None:
            self._connections.release()

    def slow_down(self, sent: float, pause: float) -> None:
        """Pause because of a 429, and halve the pace.

        The pace is halved once for all the requests that were sent before it was halved.

        Args:
            sent: when the rejected request was sent, as `acquire` returned it.
            pause: seconds in which nothing is sent.
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
        while (delay := self.delay) > 0:  # noqa: ASYNC110 (a pause may be extended meanwhile)
            await asyncio.sleep(delay)
        now = time.monotonic()
        self._sent.append(now)
        if (pace := self._current_pace(now)) is not None:
            self._next = now + random.uniform(0.9, 1.1) / pace  # noqa: S311 (not a secret)
        return now

    def _current_pace(self, now: float) -> float | None:
        """Return the pace as it has grown since the last 429; None once it is not limited any more."""
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
