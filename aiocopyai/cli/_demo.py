"""The demo: a local emulator with runs as of a workflow in use, over six weeks, more on some days than on others."""

from __future__ import annotations

import asyncio
from bisect import bisect
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from aiocopyai import JSON, CopyAISession, WebhookEventType
from aiocopyai.cli._formats import say


if TYPE_CHECKING:
    from aiocopyai.emulator import Emulator


RUNS: Final = 640
WORKFLOW_ID: Final = "WCFG-6db59f06-2f6c-4d3e-9a51-7c0b8e4d1f27"
_RUN_SECONDS: Final = 2.0
_PAUSE: Final = 1.0
_WEBHOOKS: Final = (WebhookEventType.RUN_COMPLETED, WebhookEventType.RUN_FAILED)

_FIRST_DAY: Final = datetime(2026, 1, 5, tzinfo=UTC)
_DAYS: Final = 42
_OPENS, _HOURS = 7.0, 12.0
_SATURDAY: Final = 5


def make_emulator() -> Emulator:
    """Make the emulator, for whoever starts it."""
    from aiocopyai.emulator import Emulator  # noqa: PLC0415 (only the demo needs a server)

    # A little latency, as a real server has it, so that the pages are seen to come one by one.
    emulator = Emulator(RUNS, workflow_id=WORKFLOW_ID, latency=0.05, run_time=_RUN_SECONDS)
    emulator.replace_runs(_spread(emulator.runs()))
    return emulator


def announce(emulator: Emulator) -> None:
    """Say that it is the demo, and where."""
    say(f"demo: {RUNS} made-up runs, from a Copy.ai emulator at {emulator.url}")


@asynccontextmanager
async def open_demo() -> AsyncGenerator[CopyAISession, None]:
    """Give a session on an emulator whose workflow `WORKFLOW_ID` has runs."""
    async with (
        make_emulator() as emulator,
        CopyAISession(emulator.api_key, base_url=emulator.url) as session,
    ):
        for event_type in _WEBHOOKS:
            await session.create_webhook("https://example.com/copyai", event_type, WORKFLOW_ID)
        announce(emulator)
        yield session


@asynccontextmanager
async def starting_runs(session: CopyAISession) -> AsyncGenerator[None, None]:
    """Start a run now and then, so that something happens."""

    async def start() -> None:
        while True:
            await asyncio.sleep(_PAUSE)
            await session.start_run(WORKFLOW_ID, {"Company name": "Northwind Bikes"})

    task = asyncio.create_task(start())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _spread(runs: Sequence[Mapping[str, JSON]]) -> list[JSON]:
    """Give runs, the newest first, in the same order but at other times."""
    until = list(accumulate(_weight(day) for day in range(_DAYS)))
    return [
        {**run, "createdAt": _moment(until, (index + 0.5) / len(runs))}
        for run, index in zip(runs, range(len(runs) - 1, -1, -1), strict=True)
    ]


def _weight(day: int) -> float:
    """Give a day's share: it grows over the weeks, is small on weekends, and uneven."""
    trend = 1 + day / _DAYS
    uneven = 0.7 + 0.6 * (day * 37 % 11) / 10
    return trend * uneven * (0.15 if day % 7 >= _SATURDAY else 1)


def _moment(until: Sequence[float], part: float) -> str:
    """Return when a part of all runs has been started, given the sum of the weights until each day's end."""
    sum_until = part * until[-1]
    day = bisect(until, sum_until)
    before = until[day - 1] if day else 0.0
    hours = _OPENS + _HOURS * (sum_until - before) / (until[day] - before)
    moment = _FIRST_DAY + timedelta(days=day, hours=hours)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
