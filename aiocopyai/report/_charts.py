"""The charts of the report page, for plotly. The page itself sets the colors of text and lines."""

# plotly is not typed.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false
from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from itertools import cycle
from typing import Any, Final

import plotly.graph_objects as go  # type: ignore[import-untyped]  # see above
from attrs import frozen

from aiocopyai._display import printable
from aiocopyai.report._summary import OTHERS, Periods, Totals


_NAME_LENGTH: Final = 28
"""The maximum number of characters of a status in the legend."""
_CREDITS_COLOR, _FAILED_COLOR = "#a678b8", "#d9566a"
_STATUS_COLORS: Final = {
    "COMPLETE": "#3fa687",
    "FAILED": _FAILED_COLOR,
    "RETRYING": "#e5833c",
    "PROCESSING": "#e6b53f",
    "WAITING": "#8fb4e0",
    "NEW": "#4c86c6",
    OTHERS: "#a9abb0",
}
_OTHER_COLORS: Final = ("#8e7cc3", "#a17c68", "#6cb3ad", "#c58aa5")
"""The colors of statuses that the API reference does not list."""
_PARTIAL_OPACITY: Final = 0.45

_DAY: Final = 86_400_000
"""A day in milliseconds, plotly's unit of time."""
_DAYS: Final = {"day": 1, "week": 7, "month": 30, "year": 365}
_TICK_DISTANCES: Final = {"day": _DAY, "week": 7 * _DAY, "month": "M1", "year": "M12"}
"""The distance between two ticks, as plotly expects it."""
_MAX_TICKS: Final = 6
"""If there are at most this many bars, each has a tick. A phone has no space for more."""


@frozen
class Chart:
    """One chart of the page."""

    name: str
    """The id of its HTML element."""
    title: str
    figure: dict[str, Any]
    """The data and the layout, for `Plotly.react`."""
    height: int
    """The height in CSS pixels."""


def activity_charts(grouped: Periods, colors: Mapping[str, str]) -> list[Chart]:
    """Return two charts over time: the runs, with a color for each status, and the credits."""
    found = {status for period in grouped.periods for status in period.by_status}
    status_bars = [
        _bars(grouped, status, [period.by_status.get(status, Totals()).runs for period in grouped.periods], color)
        for status, color in colors.items()
        if status in found
    ]
    credit_bars = _bars(grouped, "credits", [period.total.credits for period in grouped.periods], _CREDITS_COLOR)
    return [
        _chart("runs-by-time", f"Runs by {grouped.unit}", grouped, status_bars, 320),
        _chart("credits-by-time", f"Credits by {grouped.unit}", grouped, [credit_bars], 220),
    ]


def failures_chart(grouped: Periods) -> Chart:
    """Return a chart of the percentage of failed runs over time."""
    totals = [period.total for period in grouped.periods]
    shares = [round(100 * total.failed / total.runs, 1) for total in totals]
    bars = _bars(grouped, "failed, %", shares, _FAILED_COLOR)
    return _chart("failures-by-time", f"Failed runs by {grouped.unit}, in percent of all", grouped, [bars], 220)


def status_colors(statuses: Iterable[str]) -> dict[str, str]:
    """Return the color of each status. Statuses that the API reference does not list come last and share colors."""
    unknown = sorted(set(statuses).difference(_STATUS_COLORS))
    return _STATUS_COLORS | dict(zip(unknown, cycle(_OTHER_COLORS), strict=False))


def _bars(grouped: Periods, name: str, values: Sequence[float], color: str) -> go.Bar:
    """Return a bar for each period, almost as wide as the period. Bars of partial periods are paler."""
    label = printable(name)
    return go.Bar(
        x=[period.start.isoformat() for period in grouped.periods],
        y=values,
        width=0.8 * _DAY * _DAYS[grouped.unit],
        # plotly interprets HTML tags in a name.
        name=html.escape(label if len(label) <= _NAME_LENGTH else f"{label[: _NAME_LENGTH - 1]}…", quote=False),
        marker={
            "color": color,
            "line": {"width": 0},
            "opacity": [_PARTIAL_OPACITY if period.is_partial else 1 for period in grouped.periods],
        },
    )


def _chart(name: str, title: str, grouped: Periods, bars: Sequence[go.Bar], height: int) -> Chart:
    figure = go.Figure(bars)
    figure.update_layout(
        template="none",
        barmode="stack",
        hovermode="x unified",
        dragmode=False,
        showlegend=len(bars) > 1,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        margin={"l": 8, "r": 8, "t": 12, "b": 8},
    )
    figure.update_xaxes(**_time_axis([period.start for period in grouped.periods], grouped.unit))
    highest = max(map(sum, zip(*(bar.y for bar in bars), strict=True)))
    figure.update_yaxes(
        automargin=True,
        fixedrange=True,
        rangemode="tozero",
        zeroline=False,
        separatethousands=True,
        exponentformat="SI" if highest >= 10**9 else "none",
        ticklabelstandoff=6,
        dtick=1 if highest <= _MAX_TICKS and isinstance(highest, int) else None,  # plotly would show fractions of a run
    )
    return Chart(name, title, figure.to_plotly_json(), height)


def _time_axis(starts: Sequence[date], unit: str) -> dict[str, Any]:
    first, last = (datetime.combine(start, time()) for start in (starts[0], starts[-1]))
    bar = timedelta(days=_DAYS[unit])
    axis: dict[str, Any] = {
        "type": "date",
        "range": [(first - bar / 2).isoformat(), (last + bar / 2).isoformat()],
        "hoverformat": "%a, %-d %b %Y" if unit == "day" else f"{unit} from %-d %b %Y",
        "showgrid": False,
        "fixedrange": True,
        "automargin": True,
        "ticklabelstandoff": 4,
    }
    periods = (last - first) // bar + 1
    if periods <= _MAX_TICKS:
        axis |= {"tick0": first.isoformat(), "dtick": _TICK_DISTANCES[unit], "tickformat": "%-d %b<br>%Y"}
    elif periods <= 2 * _MAX_TICKS:
        axis["nticks"] = periods  # otherwise, plotly shows hours between the days
    return axis
