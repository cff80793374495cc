"""The demo's runs, with times as of a workflow in use: over six weeks, and more on some days than on others."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Final

from aiocopyai import JSON


_FIRST_DAY: Final = datetime(2026, 1, 5, tzinfo=UTC)
_DAYS: Final = 42
_OPENS, _HOURS = 7.0, 12.0
_SATURDAY: Final = 5


def spread(runs: Sequence[Mapping[str, JSON]]) -> list[JSON]:
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
