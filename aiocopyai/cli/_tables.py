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
"""The width of a terminal, in columns, that has space for bars."""


class _StdoutConsole(Console):
    def on_broken_pipe(self) -> None:
        # Console's own method ends the program with exit code 1.
        raise BrokenPipeError


def open_console() -> Console:
    """Return standard output as a console that prints every text as it is."""
    # rich looks at standard input first, as it was when rich was loaded.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return _StdoutConsole(highlight=False, markup=False, emoji=False, width=width)


class RunTable:
    """Prints runs in columns of fixed width, so that each run is shown before the next is known."""

    COLUMNS: Final = {"CREATED": 19, "STATUS": 10, "CREDITS": 7, "ID": 41}
    """The widths in terminal cells: 80 with the gaps. OUTPUT has the rest, if that is at least `MIN_OUTPUT`."""
    MIN_OUTPUT: Final = 10
    OMITTED_FIRST: Final = ("CREDITS", "CREATED")
    """The columns that are omitted if the terminal is too narrow. If that is not enough, ID is cut."""

    def __init__(self) -> None:
        self._console = open_console()
        self._widths = dict(self.COLUMNS)
        width = self._console.width if self._console.is_terminal else 140
        free = width + 1 - sum(self._widths.values()) - len(self._widths)  # each column but the last is before a gap
        for name in self.OMITTED_FIRST:
            if free < 0:
                free += self._widths.pop(name) + 1
        self._widths["ID"] += min(free, 0)
        if free > self.MIN_OUTPUT:
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
        if "CREDITS" in widths:  # a number is not cut: its column takes cells from the id
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

    If the terminal is too narrow, texts are cut, the longest first, but numbers are not.

    Args:
        console: where to print.
        titles: the titles of the columns. The texts in a column STATUS have colors.
        rows: the cells of each row: texts, numbers, and None for an empty cell in a column of numbers. A row is dimmed
            if its first text is indented.
        bars: a number for each row, drawn as a bar if the terminal has space.
    """
    from rich.bar import Bar  # noqa: PLC0415 (a table of runs needs none of these)
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
    # Not set on the column: rich makes all columns narrower if none of them may wrap.
    return Text(printable(text), style, no_wrap=True, overflow="ellipsis")
