"""A report as one page for a browser: all that it needs is in it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from attrs import frozen
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]  # it has no types of its own

from aiocopyai import __version__
from aiocopyai._display import local_time, printable
from aiocopyai.report._charts import Chart, failures_chart, keys_chart, status_chart, time_charts, values_chart
from aiocopyai.report._statistics import Amount, Figures, Periods, periods


MOST_PERIODS: Final = 184
"""Days that get a bar each; more are put together to weeks, months or years."""
TOP: Final = 20
"""Rows of a table of which there may be many."""
_CHARTED_KEYS: Final = 6
"""Metadata keys that get a chart of their values."""


@frozen
class Charts:
    """The charts, by where they stand."""

    time: Sequence[Chart] = ()
    status: Sequence[Chart] = ()
    keys: Sequence[Chart] = ()
    values: Sequence[Chart] = ()
    failures: Sequence[Chart] = ()

    @property
    def all(self) -> list[Chart]:
        """All of them."""
        return [*self.time, *self.status, *self.keys, *self.values, *self.failures]


def make_page(figures: Figures, source: str) -> str:
    """Make the page, in HTML; every text of the server's is escaped in it.

    Args:
        figures: what to report.
        source: what is reported on, in words.
    """
    environment = Environment(
        loader=PackageLoader("aiocopyai.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(shown=printable, number=_number, moment=_moment)
    grouped = periods(figures, MOST_PERIODS)
    charts = _draw(figures, grouped)
    return environment.get_template("report.html").render(
        figures=figures,
        source=source,
        grouped=grouped,
        rows=[(start, sum(by.values(), Amount())) for start, by in grouped.by_start.items()],
        charts=charts,
        figure_data={chart.name: chart.figure for chart in charts.all},
        top=TOP,
        made=datetime.now(UTC),
        version=__version__,
        # Scripts of the page's own echo_err this word, which none in the server's texts can know.
        nonce=secrets.token_urlsafe(18),
        plotly=Markup(get_plotlyjs().replace("</script", r"<\/script")),  # noqa: S704 (plotly's own code)
    )


def _draw(figures: Figures, grouped: Periods) -> Charts:
    if not figures.total.runs:
        return Charts()
    timed = bool(grouped.by_start)
    several = [(name, key) for name, key in figures.ranked_keys if len(key.values.amounts) > 1][:_CHARTED_KEYS]
    return Charts(
        time=time_charts(grouped) if timed else (),
        status=[status_chart(figures)],
        keys=[keys_chart(figures)] if figures.keys else (),
        values=[values_chart(number, name, key) for number, (name, key) in enumerate(several, start=1)],
        failures=[failures_chart(grouped)] if timed and figures.total.failed else (),
    )


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def _moment(value: datetime | None) -> Markup | str:
    """Show a time in the user's zone; a browser or a program that wants it finds it in UTC."""
    if value is None:
        return "-"
    utc = value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}">{:%Y-%m-%d %H:%M}</time>').format(utc, local_time(value))
