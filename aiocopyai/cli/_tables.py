"""Tables on a terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Console, RenderableType
from rich.text import Text

from aiocopyai import Run
from aiocopyai._display import local_time, preview, printable


_STATUS_COLORS: Final = {
    "NEW": "cyan",
    "WAITING": "cyan",
    "PROCESSING": "yellow",
    "RETRYING": "yellow",
    "COMPLETE": "green",
    "FAILED": "red",
}
_MIN_BARS_WIDTH: Final = 80
"""Bars are drawn if a terminal has at least this many columns."""


class _StdoutConsole(Console):
    def on_broken_pipe(self) -> None:
        # Console's own method ends the program with exit code 1.
        raise BrokenPipeError


def open_console() -> Console:
    """Return a console on standard output that prints text unchanged."""
    # rich would take the width from the standard input that was open when rich was imported.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return _StdoutConsole(highlight=False, markup=False, emoji=False, width=width)


class RunTable:
    """Prints runs in columns of fixed width, so that each run is shown as soon as it is known."""

    COLUMNS: Final = {"CREATED": 19, "STATUS": 10, "CREDITS": 7, "ID": 41}
    """The widths in terminal cells: 80 with the gaps. OUTPUT fills the rest if that is at least `MIN_OUTPUT_WIDTH`."""
    MIN_OUTPUT_WIDTH: Final = 10
    OPTIONAL_COLUMNS: Final = ("CREDITS", "CREATED")
    """The columns that are omitted, in this order, if the terminal is too narrow. After that, ID is truncated."""

    def __init__(self) -> None:
        self._console = open_console()
        self._widths = dict(self.COLUMNS)
        width = self._console.width if self._console.is_terminal else 140
        free = width + 1 - sum(self._widths.values()) - len(self._widths)  # with a gap between two columns
        for name in self.OPTIONAL_COLUMNS:
            if free < 0:
                free += self._widths.pop(name) + 1
        self._widths["ID"] += min(free, 0)
        if free > self.MIN_OUTPUT_WIDTH:
            self._widths["OUTPUT"] = free - 1
        self._print({name: name for name in (*self.COLUMNS, "OUTPUT")}, status_style="bold")

    def write(self, run: Run, /) -> None:
        status = str(run.status or "-")
        created = run.created_at
        texts = {
            "CREATED": f"{local_time(created):%Y-%m-%d %H:%M:%S}" if created else "-",
            "STATUS": status,
            "CREDITS": "-" if run.credits is None else str(run.credits),
            "ID": run.id,
            "OUTPUT": preview(run),
        }
        self._print(texts, status_style=_STATUS_COLORS.get(status, ""))

    def flush(self) -> None:
        sys.stdout.flush()

    def _print(self, texts: Mapping[str, str], *, status_style: str) -> None:
        widths = dict(self._widths)
        if "CREDITS" in widths:  # numbers are not truncated: a long one makes the column ID narrower
            extra = min(max(0, len(texts["CREDITS"]) - widths["CREDITS"]), widths["ID"] - 1)
            widths["CREDITS"] += extra
            widths["ID"] -= extra
        cells: list[Text] = []
        for name, width in widths.items():
            text = texts[name].rjust(width) if name == "CREDITS" else texts[name][: 4 * width]
            cell = Text(printable(text), status_style if name == "STATUS" else "")
            cell.truncate(width, overflow="ellipsis", pad=True)
            cells.append(cell)
        line = Text(" ").join(cells)
        line.rstrip()
        self._console.print(line, soft_wrap=True)


def print_table(
    console: Console, titles: Sequence[str], rows: Sequence[Sequence[str | int | None]], *, bars: Sequence[int] = ()
) -> None:
    """Print a table and an empty line.

    If the terminal is too narrow, texts are truncated, the longest first. Numbers are not.

    Args:
        console: where to print.
        titles: the titles of the columns. The texts in a column STATUS have colors.
        rows: the cells of each row: texts, numbers, and None for an empty cell in a column of numbers. A row is dimmed
            if its first text is indented.
        bars: a number for each row, drawn as a bar if the terminal is wide enough.
    """
    from rich.bar import Bar  # noqa: PLC0415 (not needed for a `RunTable`)
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    if "ID" in titles:
        table.padding = (0, 1, 0, 0)  # so that an id fits into 80 columns, and can be copied
    for title, cell in zip(titles, rows[0], strict=True):
        is_text = isinstance(cell, str)
        table.add_column(_one_line(title), justify="left" if is_text else "right", no_wrap=not is_text)
    has_bars = bars and not console.options.ascii_only and console.width >= _MIN_BARS_WIDTH
    if has_bars:
        table.add_column()
    for index, row in enumerate(rows):
        row_style = "dim" if str(row[0]).startswith(" ") else ""
        cells: list[RenderableType] = []
        for title, cell in zip(titles, row, strict=True):
            if isinstance(cell, str):
                cells.append(_one_line(cell, _STATUS_COLORS.get(cell, "") if title == "STATUS" else row_style))
            else:
                cells.append("" if cell is None else f"{cell:,}")
        if has_bars:
            cells.append(Bar(max(bars), 0, bars[index], width=30, color="cyan"))
        table.add_row(*cells, style=row_style)
    console.print(table)
    console.print()


def _one_line(text: str, style: str = "") -> Text:
    # Not set for the whole column, because rich makes all columns narrower if none of them may wrap.
    return Text(printable(text), style, no_wrap=True, overflow="ellipsis")
