"""The charts of a report's page, as plotly draws them; colours of texts and lines are left to the page."""

# What plotly gives is unknown to the type checkers: it has no types of its own.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportUnknownArgumentType=false
from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final

import plotly.graph_objects as go  # type: ignore[import-untyped]  # see above
from attrs import frozen
from plotly.subplots import make_subplots  # type: ignore[import-untyped]  # see above

from aiocopyai._display import printable
from aiocopyai.report._statistics import REST, Amount, Figures, KeyFigures, Periods


_TOP: Final = 10
_TOP_VALUES: Final = 8
_LABEL: Final = 28
"""Characters of a bar's name; the whole of it is shown where the bar is pointed at."""
_ROW: Final = 30
"""The height of a bar and the gap below it, in CSS pixels."""

_RUNS, _CREDITS, _FAILED = "#4c86c6", "#a678b8", "#d9566a"
_COLOURS: Final = {
    "COMPLETE": "#3fa687",
    "FAILED": _FAILED,
    "RETRYING": "#e5833c",
    "PROCESSING": "#e6b53f",
    "WAITING": "#8fb4e0",
    "NEW": "#4c86c6",
    REST: "#a9abb0",
}
_UNKNOWN: Final = ("#8e7cc3", "#a17c68", "#6cb3ad", "#c58aa5")

_DAY: Final = 86_400_000
"""Milliseconds, as plotly counts time."""
_LENGTHS: Final = {"day": 1, "week": 7, "month": 30, "year": 365}
_TICKS: Final = {"day": _DAY, "week": 7 * _DAY, "month": "M1", "year": "M12"}
_TICKED: Final = 10
"""Up to so many bars, each one's date is shown."""


@frozen
class Chart:
    """One chart of the page."""

    name: str
    """Its id in the page."""
    title: str
    figure: dict[str, Any]
    """Data and layout, as `Plotly.newPlot` takes them."""
    height: int
    """In CSS pixels."""


def time_charts(grouped: Periods) -> list[Chart]:
    """Draw runs by status, and credits, over time."""
    credit_bars = _bars(grouped, "credits", [_total(by).credits for by in grouped.by_start.values()], _CREDITS)
    return [
        _over_time("runs-by-time", f"Runs by {grouped.name}", grouped, _status_bars(grouped), 340),
        _over_time("credits-by-time", f"Credits by {grouped.name}", grouped, [credit_bars], 240),
    ]


def failures_chart(grouped: Periods) -> Chart:
    """Draw over time which share of the runs failed."""
    totals = [_total(by) for by in grouped.by_start.values()]
    shares = [round(100 * total.failed / total.runs, 1) for total in totals]
    bars = _bars(grouped, "failed, %", shares, _FAILED)
    return _over_time("failures-by-time", f"Failed runs by {grouped.name}, in percent of all", grouped, [bars], 220)


def status_chart(figures: Figures) -> Chart:
    """Draw runs and credits of each status."""
    rows = _with_rest(figures.statuses.largest, figures.statuses.rest)
    colours = _status_colours([name for name, _ in rows])
    return _pairs("by-status", "Runs and credits by status", rows, list(colours.values()))


def keys_chart(figures: Figures) -> Chart:
    """Draw runs and credits of each metadata key."""
    rows = [(name, key.total) for name, key in figures.ranked_keys[:_TOP]]
    if figures.without_metadata.runs:
        rows.append(("(none)", figures.without_metadata))
    return _pairs("by-key", "Runs and credits by metadata key", rows)


def values_chart(number: int, name: str, key: KeyFigures) -> Chart:
    """Draw runs and credits of the most frequent values of a metadata key."""
    top, rest = key.values.top(_TOP_VALUES)
    # Not the rest: among many values its bar would make all others points.
    which = f"the {len(top)} most frequent of {key.distinct} values" if rest.runs else f"{key.distinct} values"
    return _pairs(f"key-{number}", f"{name}: {which}", top)


def _with_rest(rows: Sequence[tuple[str, Amount]], rest: Amount) -> list[tuple[str, Amount]]:
    return [*rows, (REST, rest)] if rest.runs else list(rows)


def _total(by_status: Mapping[str, Amount]) -> Amount:
    return sum(by_status.values(), Amount())


def _status_colours(statuses: Sequence[str]) -> dict[str, str]:
    """Give every status its colour; those that the API's reference doesn't know share a few."""
    unknown = sorted(set(statuses) - set(_COLOURS))
    others = {status: _UNKNOWN[number % len(_UNKNOWN)] for number, status in enumerate(unknown)}
    return {status: _COLOURS.get(status) or others[status] for status in statuses}


def _status_bars(grouped: Periods) -> list[go.Bar]:
    found = {status for by_status in grouped.by_start.values() for status in by_status}
    order = [status for status in _COLOURS if status in found]
    colours = _status_colours(order + sorted(found - set(order)))
    return [
        _bars(grouped, status, [by.get(status, Amount()).runs for by in grouped.by_start.values()], colour)
        for status, colour in colours.items()
    ]


def _bars(grouped: Periods, name: str, numbers: Sequence[float], colour: str) -> go.Bar:
    """Make bars, each as wide as its stretch of time but for a gap."""
    width = 0.8 * _DAY * _LENGTHS[grouped.name]
    starts = [start.isoformat() for start in grouped.by_start]
    return go.Bar(
        x=starts, y=numbers, width=width, name=_safe(_cut(name)), marker={"color": colour, "line": {"width": 0}}
    )


def _over_time(name: str, title: str, grouped: Periods, bars: Sequence[go.Bar], height: int) -> Chart:
    figure = go.Figure(bars)
    figure.update_layout(
        template="none",
        barmode="stack",
        hovermode="x unified",
        showlegend=len(bars) > 1,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        margin={"l": 48, "r": 20, "t": 8, "b": 40},
    )
    figure.update_xaxes(**_time_axis(list(grouped.by_start), grouped.name))
    highest = max(map(sum, zip(*(bar.y for bar in bars), strict=True)))
    ticks = 1 if highest <= _TICKED / 2 else None  # plotly would show fractions of a run
    figure.update_yaxes(fixedrange=True, rangemode="tozero", zeroline=False, dtick=ticks)
    return Chart(name, title, figure.to_plotly_json(), height)


def _time_axis(starts: Sequence[date], name: str) -> dict[str, Any]:
    first, last = _milliseconds(starts[0]), _milliseconds(starts[-1])
    bar = _DAY * _LENGTHS[name]
    axis: dict[str, Any] = {
        "type": "date",
        "range": [first - bar / 2, last + bar / 2],
        "hoverformat": "%a, %-d %b %Y" if name == "day" else f"{name} from %-d %b %Y",
        "showgrid": False,
    }
    if last - first < _TICKED * bar:  # plotly would show hours between the days
        axis |= {"tick0": first, "dtick": _TICKS[name], "tickformat": "%-d %b<br>%Y"}
    return axis


def _milliseconds(day: date) -> int:
    """Give a day as plotly counts time, from 1970 on."""
    return _DAY * (day - date(1970, 1, 1)).days


def _pairs(name: str, title: str, rows: Sequence[tuple[str, Amount]], colours: Sequence[str] | None = None) -> Chart:
    """Draw rows of two bars: how many runs, and what they cost."""
    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=("runs", "credits"))
    figure.add_trace(_row_bars(rows, [amount.runs for _, amount in rows], colours or _RUNS), row=1, col=1)
    figure.add_trace(_row_bars(rows, [amount.credits for _, amount in rows], colours or _CREDITS), row=1, col=2)
    figure.update_layout(
        template="none", showlegend=False, bargap=0.25, dragmode=False, margin={"l": 8, "r": 8, "t": 24, "b": 8}
    )
    figure.update_annotations(font={"size": 12})
    figure.update_xaxes(visible=False, fixedrange=True)
    figure.update_yaxes(fixedrange=True, autorange="reversed", showgrid=False, showline=False, zeroline=False, ticks="")
    labels = [_safe(_cut(label)) for label, _ in rows]
    figure.update_yaxes(automargin=True, tickvals=list(range(len(rows))), ticktext=labels, col=1)
    return Chart(name, title, figure.to_plotly_json(), 40 + _ROW * len(rows))


def _row_bars(rows: Sequence[tuple[str, Amount]], numbers: Sequence[int], colours: str | Sequence[str]) -> go.Bar:
    largest = max(1, *numbers)
    return go.Bar(
        # By number: two names may look the same when they are cut.
        y=list(range(len(rows))),
        x=numbers,
        orientation="h",
        marker={"color": colours, "line": {"width": 0}},
        text=[f" {number:,}" for number in numbers],
        textposition=["inside" if number > 0.8 * largest else "outside" for number in numbers],
        insidetextanchor="end",
        insidetextfont={"color": "white"},
        cliponaxis=False,
        hovertext=[f"{_safe(label)}: {number:,}" for (label, _), number in zip(rows, numbers, strict=True)],
        hoverinfo="text",
    )


def _cut(text: str) -> str:
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 1]}…"


def _safe(text: str) -> str:
    """Show a text as it is, of which plotly would take tags for markup; quotes are none to it, nor their escapes."""
    return html.escape(printable(text), quote=False)
