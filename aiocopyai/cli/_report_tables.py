"""The tables of `aiocopyai report`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from rich.bar import Bar
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from aiocopyai._display import local_time, plural, printable
from aiocopyai.cli._run_table import RunTable, open_console
from aiocopyai.report import Summary, Totals, group_by_period
from aiocopyai.report._summary import OTHERS


MAX_PERIODS: Final = 62
"""Days that have a row each; beyond, weeks, months or years have one."""
_FULL_WIDTH: Final = 80
"""The width of a terminal, in columns, that has space for bars and whole ids."""
_MAX_ROWS: Final = 10
_MAX_VALUES: Final = 5


def print_tables(summary: Summary, source: str) -> None:
    """Print all tables on standard output."""
    console = open_console()
    tables: list[RenderableType] = [_heading(summary, source)]
    if summary.days.totals:
        with_bars = not console.options.ascii_only and console.width >= _FULL_WIDTH
        tables.append(_period_table(summary, with_bars=with_bars))
    if summary.total.runs:
        statuses = [(_status(name), totals) for name, totals in summary.statuses.ranked]
        tables.append(_totals_table("STATUS", statuses, summary.statuses.others))
    if len(summary.workflows.totals) > 1:
        top, others = summary.workflows.top(_MAX_ROWS)
        tables.append(_totals_table("WORKFLOW", [(_text(name), totals) for name, totals in top], others))
    if summary.keys:
        tables.append(_metadata_table(summary))
    if summary.errors:
        tables.append(_error_table(summary))
    if summary.costliest:
        tables.append(_costliest_table(summary))
    for table in tables:
        console.print(table)
        console.print()


def _heading(summary: Summary, source: str) -> Text:
    total = summary.total
    lines = [f"{plural(total.runs, 'run')}, {total.failed:,} failed; {total.credits:,} credits"]
    if summary.first and summary.last:
        zones = " and ".join(summary.zones)
        lines.append(f"{_time(summary.first)} to {_time(summary.last)}; times and days in {zones}")
    lines += summary.remarks
    return Text("\n").join([Text(printable(source), "bold"), *map(_text, lines)])


def _period_table(summary: Summary, *, with_bars: bool) -> Table:
    grouped = group_by_period(summary, MAX_PERIODS)
    largest = max(period.total.runs for period in grouped.periods)
    table = _table(grouped.unit.upper(), "RUNS", "CREDITS", "FAILED", *([""] if with_bars else []))
    for period in grouped.periods:
        bars = [Bar(largest, 0, period.total.runs, width=30, color="cyan")] if with_bars else []
        name = f"{period.start} (partial)" if period.is_partial else str(period.start)
        table.add_row(_text(name), *_cells(period.total), *bars)
    return table


def _totals_table(title: str, rows: Sequence[tuple[Text, Totals]], others: Totals) -> Table:
    table = _table(title, "RUNS", "CREDITS", "FAILED")
    for name, totals in rows:
        table.add_row(name, *_cells(totals))
    if others.runs:
        table.add_row(_text(OTHERS), *_cells(others))
    return table


def _metadata_table(summary: Summary) -> Table:
    """Make a table with a row for each key, and rows for its most frequent values below it."""
    table = _table("METADATA", "RUNS", "CREDITS", "FAILED")
    for key, key_summary in summary.ranked_keys[:_MAX_ROWS]:
        top, others = key_summary.values.top(_MAX_VALUES)
        if len(top) == 1 and not others.runs:
            table.add_row(_text(f"{key} = {top[0][0]}"), *_cells(key_summary.total))
            continue
        table.add_row(_text(f"{key} ({key_summary.distinct} values)"), *_cells(key_summary.total))
        for value, totals in top:
            table.add_row(_text(f"  = {value}", "dim"), *_cells(totals), style="dim")
        if others.runs:
            table.add_row(_text(f"  {OTHERS}", "dim"), *_cells(others), style="dim")
    if summary.without_metadata.runs:
        table.add_row(_text("(none)"), *_cells(summary.without_metadata))
    return table


def _error_table(summary: Summary) -> Table:
    table = _table("FAILED", "CREDITS", "LATEST", "ERROR", numbers=2)
    for error in summary.ranked_errors[:_MAX_ROWS]:
        total = error.total
        table.add_row(f"{total.runs:,}", f"{total.credits:,}", _text(_time(error.latest)), _text(error.text))
    others = summary.errors_after(_MAX_ROWS)
    if others.runs:
        table.add_row(f"{others.runs:,}", f"{others.credits:,}", "", _text(OTHERS))
    return table


def _costliest_table(summary: Summary) -> Table:
    table = _table("CREDITS", "CREATED", "STATUS", "ID", numbers=1)
    table.padding = (0, 1, 0, 0)  # so that an id fits into 80 columns, and can be copied
    for run in summary.costliest:
        table.add_row(f"{run.credits:,}", _text(_time(run.created_at)), _status(run.status), _text(run.id))
    return table


def _table(*titles: str, numbers: int | None = None) -> Table:
    """Make a table whose first `numbers` columns are numbers and the others text; by default, text and then numbers.

    Where the terminal is too narrow for it, text is cut, the longest first, and no number.
    """
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for index, title in enumerate(titles):
        is_text = not title or (index == 0 if numbers is None else index >= numbers)
        table.add_column(_text(title), justify="left" if is_text else "right", no_wrap=not is_text)
    return table


def _cells(totals: Totals) -> tuple[str, str, str]:
    return f"{totals.runs:,}", f"{totals.credits:,}", f"{totals.failed:,}" if totals.failed else ""


def _status(status: str) -> Text:
    return _text(status, RunTable.COLORS.get(status, ""))


def _text(text: str, style: str = "") -> Text:
    # Not set on the column: rich makes all columns narrower if none of them may wrap.
    return Text(printable(text), style, no_wrap=True, overflow="ellipsis")


def _time(time: datetime | None) -> str:
    return f"{local_time(time):%Y-%m-%d %H:%M}" if time else "-"
