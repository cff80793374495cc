"""The data of ``--demo``: an emulator with the runs of six weeks, which differ from day to day as real ones do."""

from __future__ import annotations

import asyncio
from bisect import bisect
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from aiocopyai.cli._options import Settings


if TYPE_CHECKING:
    from aiocopyai import JSON, CopyAISession
    from aiocopyai.emulator import Emulator


WORKFLOW_ID: Final = "WCFG-6db59f06-2f6c-4d3e-9a51-7c0b8e4d1f27"
_RUNS: Final = 640
_RUN_TIME: Final = 2.0
_START_INTERVAL: Final = 1.0
_WEBHOOK_EVENTS: Final = ("workflowRun.completed", "workflowRun.failed")

_FIRST_DAY: Final = datetime(2026, 1, 5, tzinfo=UTC)
_DAYS: Final = 42
_OPENING_HOUR, _HOURS = 7.0, 12.0
_SATURDAY: Final = 5


def make_emulator() -> Emulator:
    """Make an emulator, not started yet, whose workflow `WORKFLOW_ID` has runs."""
    from aiocopyai.emulator import Emulator  # noqa: PLC0415 (loads a server)

    # With latency, so that one can see the pages arrive one by one.
    emulator = Emulator(_RUNS, workflow_id=WORKFLOW_ID, latency=0.05, run_time=_RUN_TIME)
    emulator.replace_runs(_spread_over_days(emulator.runs()))
    return emulator


def announce(emulator: Emulator, settings: Settings) -> None:
    """Say that this is the demo."""
    settings.inform(f"demo: {_RUNS} sample runs, from a Copy.ai emulator at {emulator.url}")


@asynccontextmanager
async def open_session(settings: Settings) -> AsyncGenerator[CopyAISession]:
    """Open a session with an emulator whose workflow `WORKFLOW_ID` has runs and webhooks."""
    async with (
        make_emulator() as emulator,
        settings.make_session(emulator.api_key, base_url=emulator.url) as session,
    ):
        for event_type in _WEBHOOK_EVENTS:
            await session.create_webhook("https://example.com/copyai", event_type, WORKFLOW_ID)
        announce(emulator, settings)
        yield session


@asynccontextmanager
async def starting_runs(session: CopyAISession) -> AsyncGenerator[None]:
    """Start a run every second while this lasts, so that there are events to see."""

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


def _spread_over_days(runs: Sequence[Mapping[str, JSON]]) -> list[JSON]:
    """Return the runs, the newest first, in the same order with other creation times."""
    cumulated = list(accumulate(_weight(day) for day in range(_DAYS)))
    return [
        {**run, "createdAt": _creation_time(cumulated, (index + 0.5) / len(runs))}
        for run, index in zip(runs, range(len(runs) - 1, -1, -1), strict=True)
    ]


def _weight(day: int) -> float:
    """Return a day's share of the runs: it grows over the weeks, varies, and is small on weekends."""
    trend = 1 + day / _DAYS
    variation = 0.7 + 0.6 * (day * 37 % 11) / 10
    return trend * variation * (0.15 if day % 7 >= _SATURDAY else 1)


def _creation_time(cumulated: Sequence[float], fraction: float) -> str:
    """Return the time by which a fraction of all runs was created.

    Args:
        cumulated: for each day, the sum of the weights up to its end.
        fraction: between 0 and 1.
    """
    weight = fraction * cumulated[-1]
    day = bisect(cumulated, weight)
    before = cumulated[day - 1] if day else 0.0
    hours = _OPENING_HOUR + _HOURS * (weight - before) / (cumulated[day] - before)
    created = _FIRST_DAY + timedelta(days=day, hours=hours)
    return created.isoformat(timespec="milliseconds").replace("+00:00", "Z")
