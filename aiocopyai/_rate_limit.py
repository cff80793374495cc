"""May I send now? The session's cap on its rate, and the cool-down after a 429."""

from __future__ import annotations

import asyncio
import time

from aiolimiter import AsyncLimiter


class Gate:
    """Lets requests pass one by one: at most `max_rate` a second, and none during a cool-down."""

    def __init__(self, max_rate: float | None) -> None:
        # One each 1 / max_rate seconds, as a limiter of less than one per period never lets anything pass.
        self._limiter = None if max_rate is None else AsyncLimiter(1, 1 / max_rate)
        self._closed_until = 0.0

    def __repr__(self) -> str:
        return f"<Gate: {'cooling down' if self._cooling() > 0 else 'open'}>"

    def hold(self, seconds: float) -> None:
        """Let nothing pass for so many seconds from now; a longer hold that is on stays on."""
        self._closed_until = max(self._closed_until, time.monotonic() + seconds)

    async def pass_through(self) -> None:
        """Wait until a request may be sent."""
        await self._cool_down()
        if self._limiter is not None:
            await self._limiter.acquire()
            # A 429 may have come in while this one stood in line.
            await self._cool_down()

    async def _cool_down(self) -> None:
        while (seconds := self._cooling()) > 0:  # noqa: ASYNC110 (a hold may be prolonged)
            await asyncio.sleep(seconds)

    def _cooling(self) -> float:
        return self._closed_until - time.monotonic()
