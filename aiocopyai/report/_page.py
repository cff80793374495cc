"""The report as one HTML page, which needs no network."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiocopyai import __version__
from aiocopyai._display import local_time, printable
from aiocopyai._files import replace_file
from aiocopyai.report._summary import OTHERS, Summary, Totals, group_by_period


if TYPE_CHECKING:
    from markupsafe import Markup


MAX_PERIODS: Final = 184
"""Days that have a bar each; beyond, weeks, months or years have one."""
_MAX_ROWS: Final = 20
"""Rows of a table."""
_MAX_VALUES: Final = 10
"""Values of a metadata key that have a row in the table of the key."""
_OPEN_TABLES: Final = 6
"""Metadata keys whose tables of values are shown at once."""
_EXACT: Final = 10**15
"""Up to here a float has one correct decimal place."""


def write_report(summary: Summary, path: str | os.PathLike[str], *, source: str = "Copy.ai runs") -> None:
    """Write statistics as an HTML page with charts and tables. An existing page is replaced in one step.

    The page includes plotly (4.8 MB) and needs no network. Text from the server is escaped. Needs the extra ``report``.

    Args:
        summary: the statistics.
        path: the file to write, such as ``report.html``.
        source: the source of the runs; the page's subtitle.

    Raises:
        ModuleNotFoundError: the extra ``report`` is not installed.
        OSError: the file cannot be written; the previous page is unchanged.
    """
    replace_file(Path(path), [render_report(summary, source).encode("utf-8", "backslashreplace")])


def render_report(summary: Summary, source: str) -> str:
    """Return the page as HTML."""
    # Here, as the statistics do without the extra `report`.
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415
    from markupsafe import Markup  # noqa: PLC0415
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]  # noqa: PLC0415 (plotly has no types)

    from aiocopyai.report._charts import activity_charts, failures_chart, status_colors  # noqa: PLC0415

    environment = Environment(
        loader=PackageLoader("aiocopyai.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., object]] = {
        "shown": printable,
        "number": _number,
        "share": _share,
        "time": partial(_time, summary.zone),
    }
    environment.filters.update(filters)
    grouped = group_by_period(summary, MAX_PERIODS)
    colors = status_colors(summary.statuses.totals)
    activity = activity_charts(grouped, colors) if grouped.periods else []
    total, runs = summary.total.credits, max(1, summary.total.runs)
    average = total // runs if abs(total) >= _EXACT else total / runs
    failures = [failures_chart(grouped)] if grouped.periods and summary.total.failed else []
    return environment.get_template("report.html").render(
        summary=summary,
        source=source,
        average=average,
        period_rows=[(f"{period.start}{' (partial)' * period.is_partial}", period.total) for period in grouped.periods],
        grouped=grouped,
        activity=activity,
        failures=failures,
        figures={chart.name: chart.figure for chart in [*activity, *failures]},
        status_colors=colors,
        key_rows=_with_others(
            [(name, key.total) for name, key in summary.ranked_keys[:_MAX_ROWS]],
            Totals.sum(key.total for _, key in summary.ranked_keys[_MAX_ROWS:]),
            without=summary.without_metadata,
        ),
        value_tables=[
            (name, key.distinct, _with_others(*key.values.top(_MAX_VALUES)))
            for name, key in summary.ranked_keys
            if len(key.values.totals) > 1 and name != OTHERS
        ][:_MAX_ROWS],
        open_tables=_OPEN_TABLES,
        workflow_rows=_with_others(*summary.workflows.top(_MAX_ROWS)),
        status_rows=_with_others(summary.statuses.ranked, summary.statuses.others),
        max_rows=_MAX_ROWS,
        made=datetime.now(UTC),
        version=__version__,
        # The page's own scripts carry this secret, so that no script in the server's texts runs.
        nonce=secrets.token_urlsafe(18),
        plotly=Markup(get_plotlyjs().replace("</script", r"<\/script")),  # noqa: S704 (plotly's own code)
    )


def _with_others(
    rows: Sequence[tuple[str, Totals]], others: Totals, *, without: Totals | None = None
) -> list[tuple[str, Totals]]:
    """Add the rows for what is not counted separately, and for what has no key."""
    extra = [(OTHERS, others), ("(none)", without or Totals())]
    return [*rows, *((name, totals) for name, totals in extra if totals.runs)]


def _share(value: int, most: int) -> float:
    """Return a value as percentage of the largest one."""
    return round(100 * value / most, 1) if 0 < value <= most else 0.0


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def _time(zone: tzinfo | None, value: datetime | None) -> Markup | str:
    """Return a time in a zone, with a machine-readable one in UTC."""
    from markupsafe import Markup  # noqa: PLC0415 (the extra `report`)

    if value is None:
        return "-"
    utc = value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}">{:%Y-%m-%d %H:%M}</time>').format(utc, local_time(value, zone))
