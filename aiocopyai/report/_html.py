"""The report as an HTML page that works offline."""

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
from aiocopyai.report._summary import OTHERS, Periods, Summary, Totals, group_by_period


if TYPE_CHECKING:
    from markupsafe import Markup


_MAX_PERIODS: Final = 184
"""The maximum number of bars in a chart. If there are more days, each bar is a week, a month or a year."""
_MAX_ROWS: Final = 20
"""The maximum number of rows in a table."""
_MAX_VALUES: Final = 10
"""The maximum number of rows in a table of the values of a metadata key."""
_OPEN_TABLES: Final = 6
"""The number of tables of values that are not collapsed."""


def write_report(summary: Summary, path: str | os.PathLike[str], *, source: str = "Copy.ai runs") -> None:
    """Write statistics as an HTML page with charts and tables. An existing file is replaced atomically.

    The page includes plotly (4.8 MB) and works offline. Text from the server is escaped. This function requires the
    extra ``report``.

    Args:
        summary: the statistics.
        path: the file to write, such as ``report.html``.
        source: the subtitle of the page, which says where the runs are from.

    Raises:
        ModuleNotFoundError: the extra ``report`` is not installed.
        OSError: the file cannot be written; an existing file is unchanged.
    """
    replace_file(Path(path), [render_report(summary, source).encode("utf-8", "backslashreplace")])


def render_report(summary: Summary, source: str) -> str:
    """Return the page as HTML."""
    # Imported here, because the statistics do not need the extra `report`.
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
        "printable": printable,
        "number": _number,
        "time": partial(_time, summary.zone),
    }
    environment.filters.update(filters)
    grouped = group_by_period(summary, _MAX_PERIODS)
    colors = status_colors(summary.statuses.totals)
    activity = activity_charts(grouped, colors) if grouped.periods else []
    total, runs = summary.total.credits, max(1, summary.total.runs)
    average = total // runs if abs(total) >= 10**15 else total / runs  # a larger float has no exact decimal place
    failures = [failures_chart(grouped)] if grouped.periods and summary.total.failed else []
    return environment.get_template("report.html").render(
        summary=summary,
        source=source,
        average=average,
        grouped=grouped,
        activity=activity,
        failures=failures,
        figures={chart.name: chart.figure for chart in [*activity, *failures]},
        status_colors=colors,
        open_tables=_OPEN_TABLES,
        max_rows=_MAX_ROWS,
        **_table_rows(summary, grouped),
        created=datetime.now(UTC),
        version=__version__,
        # Browsers run only scripts with this nonce, so that no script in a run is executed.
        nonce=secrets.token_urlsafe(18),
        plotly=Markup(get_plotlyjs().replace("</script", r"<\/script")),  # noqa: S704 (plotly's own code)
    )


def _table_rows(summary: Summary, grouped: Periods) -> dict[str, object]:
    """Return the rows of each table by its name in the template."""
    keys = summary.ranked_keys
    return {
        "period_rows": [
            (f"{period.start}{' (partial)' * period.is_partial}", period.total) for period in grouped.periods
        ],
        "key_rows": _with_others(
            [(name, key.total) for name, key in keys[:_MAX_ROWS]],
            Totals.sum(key.total for _, key in keys[_MAX_ROWS:]),
            without=summary.without_metadata,
        ),
        "value_tables": [
            (name, key.distinct, _with_others(*key.values.top(_MAX_VALUES)))
            for name, key in keys
            if len(key.values.totals) > 1 and name != OTHERS
        ][:_MAX_ROWS],
        "workflow_rows": _with_others(*summary.workflows.top(_MAX_ROWS)),
        "status_rows": _with_others(summary.statuses.ranked, summary.statuses.others),
    }


def _with_others(
    rows: Sequence[tuple[str, Totals]], others: Totals, *, without: Totals | None = None
) -> list[tuple[str, Totals]]:
    """Add a row for the values that are not counted separately, and one for the runs without a value."""
    extra = [(OTHERS, others), ("(none)", without or Totals())]
    return [*rows, *((name, totals) for name, totals in extra if totals.runs)]


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def _time(zone: tzinfo | None, value: datetime | None) -> Markup | str:
    """Return an HTML element with a time in a zone, and the same time in UTC for programs."""
    from markupsafe import Markup  # noqa: PLC0415 (the extra `report`)

    if value is None:
        return "-"
    utc = value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}">{:%Y-%m-%d %H:%M}</time>').format(utc, local_time(value, zone))
