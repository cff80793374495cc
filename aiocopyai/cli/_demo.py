"""The emulator that ``--demo`` starts, with sample runs from six weeks."""

from __future__ import annotations

import asyncio
from bisect import bisect
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Final


if TYPE_CHECKING:
    from aiocopyai import CopyAISession
    from aiocopyai.emulator import Emulator


WORKFLOW_ID: Final = "WCFG-6db59f06-2f6c-4d3e-9a51-7c0b8e4d1f27"
_RUN_COUNT: Final = 640
_RUN_TIME: Final = 2.0
_START_INTERVAL: Final = 1.0
_WEBHOOK_EVENTS: Final = ("workflowRun.completed", "workflowRun.failed")

_FIRST_DAY: Final = datetime(2026, 1, 5, tzinfo=UTC)
_DAYS: Final = 42
_FIRST_HOUR, _HOURS_PER_DAY = 7.0, 12.0
_SATURDAY: Final = 5


def make_emulator() -> Emulator:
    """Make an emulator with sample runs of the workflow `WORKFLOW_ID`. It is not started."""
    from aiocopyai.emulator import Emulator  # noqa: PLC0415 (loads a server)

    # With latency, so that the user sees the progress.
    emulator = Emulator(_RUN_COUNT, workflow_id=WORKFLOW_ID, latency=0.05, run_time=_RUN_TIME)
    runs = emulator.runs()  # the newest first
    times = reversed(_creation_times(len(runs)))
    emulator.replace_runs([{**run, "createdAt": time} for run, time in zip(runs, times, strict=True)])
    return emulator


def startup_message(emulator: Emulator) -> str:
    """Return the message to show when the demo starts."""
    return f"demo: {_RUN_COUNT} sample runs, from a Copy.ai emulator at {emulator.url}"


async def create_webhooks(session: CopyAISession) -> None:
    """Create webhooks, so that a list of webhooks is not empty."""
    for event_type in _WEBHOOK_EVENTS:
        await session.create_webhook("https://example.com/copyai", event_type, WORKFLOW_ID)


@asynccontextmanager
async def starting_runs(session: CopyAISession) -> AsyncGenerator[None]:
    """Start a run every second inside the block, so that a command has events to show."""

    async def start_runs() -> None:
        while True:
            await asyncio.sleep(_START_INTERVAL)
            await session.start_run(WORKFLOW_ID, {"Company name": "Northwind Bikes"})

    task = asyncio.create_task(start_runs())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _creation_times(count: int) -> list[str]:
    """Return the creation times of runs, the oldest first.

    The number of runs per day grows over the weeks, varies, and is small on weekends.
    """
    days = range(_DAYS)
    weights = [
        (1 + day / _DAYS) * (0.7 + 0.6 * (day * 37 % 11) / 10) * (0.15 if day % 7 >= _SATURDAY else 1) for day in days
    ]
    ends = list(accumulate(weights))
    times: list[str] = []
    for index in range(count):
        position = (index + 0.5) / count * ends[-1]
        day = bisect(ends, position)
        hours = _FIRST_HOUR + _HOURS_PER_DAY * (1 - (ends[day] - position) / weights[day])
        created = _FIRST_DAY + timedelta(days=day, hours=hours)
        times.append(created.isoformat(timespec="milliseconds").replace("+00:00", "Z"))
    return times
