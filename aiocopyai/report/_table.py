"""A report as tables in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from rich.bar import Bar
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from aiocopyai._display import local_time, plural, printable
from aiocopyai.cli._run_table import RunTable, open_console
from aiocopyai.report._statistics import REST, Amount, Figures, periods


MOST_PERIODS: Final = 62
"""Days that are shown one by one; more are put together to weeks, months or years."""
_TOP_ROWS: Final = 10
_TOP_VALUES: Final = 5


def show_tables(figures: Figures, source: str) -> None:
    """Write all tables to standard output."""
    out = open_console()
    for part in _parts(figures, source, out):
        out.print(part)
        out.print()


def _parts(figures: Figures, source: str, out: Console) -> Iterator[RenderableType]:
    yield _head(figures, source)
    if figures.days.amounts:
        yield _by_time(figures, with_bars=not out.options.ascii_only)
    if figures.total.runs:
        ranked = [(_status(name), amount) for name, amount in figures.statuses.largest]
        yield _by("STATUS", ranked, figures.statuses.rest)
    if len(figures.workflows.amounts) > 1:
        top, rest = figures.workflows.top(_TOP_ROWS)
        yield _by("WORKFLOW", [(_text(name), amount) for name, amount in top], rest)
    if figures.keys:
        yield _by_metadata(figures)
    if figures.errors:
        yield _failures(figures)
    if figures.costliest:
        yield _costliest(figures)


def _head(figures: Figures, source: str) -> Text:
    total = figures.total
    lines = [f"{plural(total.runs, 'run')}, {total.failed:,} failed; {total.credits:,} credits"]
    if figures.first and figures.last:
        zones = " and ".join(figures.zones)
        lines.append(f"from {_when(figures.first)} to {_when(figures.last)}; times and days are in {zones}")
    lines += figures.remarks
    return Text("\n").join([Text(printable(source), "bold"), *map(_text, lines)])


def _by_time(figures: Figures, *, with_bars: bool) -> Grid:
    grouped = periods(figures, MOST_PERIODS)
    totals = {start: sum(by_status.values(), Amount()) for start, by_status in grouped.by_start.items()}
    largest = max(amount.runs for amount in totals.values())
    grid = _grid(grouped.name.upper(), "RUNS", "CREDITS", "FAILED", "")
    for start, amount in totals.items():
        bar = Bar(largest, 0, amount.runs, width=30, color="cyan") if with_bars else ""
        grid.add_row(str(start), *_cells(amount), bar)
    return grid


def _by(title: str, ranked: Sequence[tuple[Text, Amount]], rest: Amount) -> Grid:
    grid = _grid(title, "RUNS", "CREDITS", "FAILED")
    for name, amount in ranked:
        grid.add_row(name, *_cells(amount))
    if rest.runs:
        grid.add_row(REST, *_cells(rest))
    return grid


def _by_metadata(figures: Figures) -> Grid:
    """Make a table with a line for each key, and below it some for its most frequent values."""
    grid = _grid("METADATA", "RUNS", "CREDITS", "FAILED")
    for key, key_figures in figures.ranked_keys[:_TOP_ROWS]:
        top, rest = key_figures.values.top(_TOP_VALUES)
        if len(top) == 1 and not rest.runs:
            grid.add_row(_text(f"{key} = {top[0][0]}"), *_cells(key_figures.total))
            continue
        grid.add_row(_text(f"{key} ({key_figures.distinct} values)"), *_cells(key_figures.total))
        for value, amount in top:
            grid.add_row(_text(f"  = {value}", "dim"), *_cells(amount), style="dim")
        if rest.runs:
            grid.add_row(f"  {REST}", *_cells(rest), style="dim")
    if figures.without_metadata.runs:
        grid.add_row("(none)", *_cells(figures.without_metadata))
    return grid


def _failures(figures: Figures) -> Grid:
    grid = _grid("FAILED", "CREDITS", "LATEST", "ERROR", left=2)
    for error in figures.ranked_errors[:_TOP_ROWS]:
        amount = error.amount
        grid.add_row(f"{amount.runs:,}", f"{amount.credits:,}", _when(error.latest), _text(error.text))
    rest = figures.errors_beyond(_TOP_ROWS)
    if rest.runs:
        grid.add_row(f"{rest.runs:,}", f"{rest.credits:,}", "", REST)
    return grid


def _costliest(figures: Figures) -> Grid:
    grid = _grid("CREDITS", "CREATED", "STATUS", "ID", left=1)
    grid.padding = (0, 1, 0, 0)  # then an id fits into 80 columns, and can be copied
    for run in figures.costliest:
        grid.add_row(f"{run.credits:,}", _when(run.created_at), _status(run.status), _text(run.id))
    return grid


def _grid(*titles: str, left: int | None = None) -> Grid:
    """Make a table of which the first column is text and the others are numbers; or so many numbers, then text."""
    grid = Grid(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for number, title in enumerate(titles):
        is_text = not title or (number == 0 if left is None else number >= left)
        grid.add_column(title, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
    return grid


def _cells(amount: Amount) -> tuple[str, str, str]:
    return f"{amount.runs:,}", f"{amount.credits:,}", f"{amount.failed:,}" if amount.failed else ""


def _status(status: str) -> Text:
    return _text(status, RunTable.COLOURS.get(status, ""))


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text), style)


def _when(moment: datetime | None) -> str:
    return f"{local_time(moment):%Y-%m-%d %H:%M}" if moment else "-"
