"""Clocks that a test controls, so that waits take no time and tests do not depend on the speed of the machine."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest


class Clock:
    """The monotonic clock of one module, which advances only while the module sleeps, or when a test sets it.

    Args:
        module: the name of the module; it has to use `time` and `asyncio` as modules.

    Attributes:
        now: the time in seconds.
        sleeps: how long each sleep was.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
        self.now = time.monotonic()
        self.sleeps: list[float] = []
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(f"{module}.asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": self._sleep}))

    async def _sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        end = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, end)


def skip_time(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the time-outs of the running event loop that are due within this many seconds expire at once."""
    loop = asyncio.get_running_loop()
    loop_time = loop.time
    monkeypatch.setattr(loop, "time", lambda: loop_time() + seconds)
